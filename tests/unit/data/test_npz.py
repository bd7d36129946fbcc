"""NumPy archives: layouts, labels and what is refused."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.data import all_images, message, pixels, rows, save_npz

from pipelines.data import load


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((15, 1, 4, 5), (0, 1, 2, 3)),
        ((15, 3, 4, 5), (0, 1, 2, 3)),
        ((15, 1, 4, 5), (0, 2, 3, 1)),
        ((15, 3, 4, 5), (0, 2, 3, 1)),
        ((15, 1, 4, 5), (0, 2, 3)),
        ((15, 1, 3, 1), (0, 2, 3)),
    ],
)
def test_npz_layouts(tmp_path: Path, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    images = pixels(*shape)
    given = images.transpose(axes) if len(axes) == 4 else images[:, 0]
    data = load(save_npz(tmp_path / "x.npz", train=given), tmp_path)
    assert data.spec.shape == shape[1:] and data.train.flags.c_contiguous
    assert rows(all_images(data)) == rows(images)


def test_npz_with_test_labels(tmp_path: Path) -> None:
    arrays = {"images": pixels(12, 4, 4), "labels": np.zeros(12, np.uint8)}
    arrays |= {"test_images": pixels(3, 4, 4), "test_labels": np.array([0, 5, 1], np.int16)}
    data = load(save_npz(tmp_path / "x.npz", **arrays), tmp_path)
    assert data.num_classes == 6
    assert data.test_labels is not None and data.test_labels.tolist() == [0, 5, 1]


IMAGES = pixels(20, 4, 4)
LABELS = np.arange(20) % 4
BAD_NPZ: list[tuple[dict[str, Any], list[str]]] = [
    ({"pictures": IMAGES}, ["unknown keys ['pictures']", "images"]),
    ({"labels": LABELS}, ["keys ['labels']", "images", "train"]),
    ({"images": IMAGES, "train": IMAGES}, ["one of", "images", "train"]),
    ({"images": IMAGES / 255}, ["images of type float64", "uint8"]),
    ({"images": IMAGES[0]}, ["shape (4, 4)", "(N, H, W)"]),
    ({"images": pixels(20, 4, 4, 2)}, ["shape (20, 4, 4, 2)", "C 1 or 3"]),
    ({"images": pixels(20, 3, 4, 3)}, ["shape (20, 3, 4, 3)", "C 1 or 3"]),
    ({"images": pixels(20, 4, 0)}, ["shape (20, 4, 0)", "(N, H, W)"]),
    ({"images": pixels(20, 1, 3, 4, 4)}, ["shape (20, 1, 3, 4, 4)", "(N, H, W)"]),
    ({"images": IMAGES, "labels": LABELS[:19]}, ["shape (19,)", "(20,)"]),
    ({"images": IMAGES, "labels": LABELS[:, None]}, ["shape (20, 1)", "(20,)"]),
    ({"images": IMAGES, "labels": LABELS - 1}, ["labels of -1 to 2", "from 0"]),
    ({"images": IMAGES, "labels": LABELS + 10**6}, ["1000003", "from 0"]),
    ({"images": IMAGES, "labels": LABELS / 2}, ["labels of type float64", "integers"]),
    ({"images": IMAGES, "test_images": pixels(4, 5, 5)}, ["(1, 5, 5)", "(1, 4, 4)"]),
    ({"images": IMAGES, "test_images": IMAGES[:0]}, ["0 test images", "at least 1"]),
    ({"images": IMAGES, "labels": LABELS, "test_images": IMAGES}, ["expected test_labels"]),
    ({"images": IMAGES, "test_labels": LABELS}, ["test_labels", "test_images"]),
    ({"images": IMAGES[:11]}, ["11 images", "at least 12"]),
    ({"images": IMAGES[:0]}, ["0 images", "at least 12"]),
    ({"images": np.array([{}], object)}, ["pickle", "numpy.savez"]),
]


@pytest.mark.parametrize(("arrays", "words"), BAD_NPZ)
def test_bad_npz(tmp_path: Path, arrays: dict[str, Any], words: list[str]) -> None:
    path = tmp_path / "x.npz"
    said = message(save_npz(path, **arrays))
    assert str(path) in said
    assert all(word in said for word in words), said


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 and no more"])
def test_npz_that_is_not_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    said = message(f"npz:{path}")
    assert f"{path}: not a NumPy archive" in said and "numpy.savez" in said


def test_damaged_npz(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    name = save_npz(path, images=IMAGES)
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)
    assert f"{path}: not a NumPy archive" in message(name)


def test_zip_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images", b"no array")
    said = message(f"npz:{path}")
    assert f"{path}: not a NumPy archive" in said and "magic string" in said


def test_npy_is_not_npz(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, IMAGES)
    assert f"{path}: not a NumPy archive" in message(f"npz:{path}")


def test_npz_without_a_file(tmp_path: Path) -> None:
    assert f"{tmp_path}: is a folder" in message(f"npz:{tmp_path}")
    assert "absent.npz: does not exist" in message(f"npz:{tmp_path}/absent.npz")
