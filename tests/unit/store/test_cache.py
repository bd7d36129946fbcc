"""Arrays that are computed once for a store."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from support.files import MemoryFiles

from pipelines.store.cache import cache_path, cached
from pipelines.store.files import LOCAL, Files


@pytest.fixture(params=["disk", "memory"])
def files(request: pytest.FixtureRequest) -> Files:
    return LOCAL if request.param == "disk" else MemoryFiles()


def test_arrays_are_computed_once(files: Files, tmp_path: Path) -> None:
    calls = []

    def make() -> dict[str, np.ndarray]:
        calls.append(1)
        return {"a": np.arange(6.0).reshape(2, 3).T, "b": np.array([1, 2], np.int64)}

    path = tmp_path / "features/x.safetensors"
    for _ in range(3):
        arrays = cached(path, make, files)
        assert np.array_equal(arrays["a"], np.arange(6.0).reshape(2, 3).T)
        assert arrays["b"].dtype == np.int64 and arrays["b"].tolist() == [1, 2]
    assert len(calls) == 1


@pytest.mark.parametrize("damage", ["empty", "cut short", "one bit"])
def test_a_damaged_file_is_computed_anew(damage: str, files: Files, tmp_path: Path) -> None:
    calls = []

    def make() -> dict[str, np.ndarray]:
        calls.append(1)
        return {"a": np.arange(600.0)}

    path = tmp_path / "features/x.safetensors"
    cached(path, make, files)
    content = bytearray(files.read(path))
    content[-100] ^= 1
    damaged = {"empty": b"", "cut short": content[:-9], "one bit": content}[damage]
    files.write(path, bytes(damaged))
    for _ in range(2):
        assert np.array_equal(cached(path, make, files)["a"], np.arange(600.0))
    assert len(calls) == 2


def test_a_file_without_a_checksum_is_believed(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    cached(path, lambda: {"a": np.ones(3)}, files)
    files.remove(tmp_path / "x.safetensors.sha256")
    assert np.array_equal(cached(path, lambda: {}, files)["a"], np.ones(3))


def test_nothing_is_left_if_they_cannot_be_computed(files: Files, tmp_path: Path) -> None:
    def fail() -> dict[str, np.ndarray]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        cached(tmp_path / "x.safetensors", fail, files)
    assert files.list(tmp_path, "*") == []


def test_the_name_follows_from_the_arrays() -> None:
    images = np.arange(8, dtype=np.uint8).reshape(2, 4)
    path = cache_path(Path("f"), "lenet", images)
    assert path.parent == Path("f") and path.name.startswith("lenet-")
    assert path == cache_path(Path("f"), "lenet", images.copy())
    assert path == cache_path(Path("f"), "lenet", np.asfortranarray(images))
    others = [
        cache_path(Path("f"), "pca", images),
        cache_path(Path("f"), "lenet", images, what="-2k"),
        cache_path(Path("f"), "lenet", images + 1),
        cache_path(Path("f"), "lenet", images.reshape(4, 2)),
        cache_path(Path("f"), "lenet", images.astype(np.int8)),
        cache_path(Path("f"), "lenet", images, images),
    ]
    assert len({path, *others}) == 7


DAMAGED = {
    "empty": b"",
    "cut": save({"a": np.arange(6.0)})[:-9],
    "no safetensors": b"\x80\x04N.",
    "a header without end": b"\xff" * 8 + b"{}",
    "not finite": save({"a": np.array([1.0, np.nan])}),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_computed_again(
    case: str, files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.safetensors"
    files.write(path, DAMAGED[case])
    for _ in range(2):
        assert cached(path, lambda: {"a": np.arange(6.0)}, files)["a"].tolist() == [*range(6)]
    (message,) = caplog.messages
    assert str(path) in message and "computed anew" in message
