"""The marker by which a node tells whether it sees a command's store."""

import pickle
import shutil
import time
from pathlib import Path

import pytest

from gen_models.core.errors import InputError
from pipelines.store.files import StorageFullError, StoreError, UnsharedStoreError
from pipelines.store.marker import StoreMarker


def test_the_marker_is_seen_where_it_was_written(tmp_path: Path) -> None:
    marker = StoreMarker.write(tmp_path, tmp_path / "run" / "marker")
    start = time.monotonic()
    assert marker.is_seen()
    pickle.loads(pickle.dumps(marker)).require_seen("node here")
    assert time.monotonic() - start < 5.0  # without waiting


@pytest.mark.parametrize("case", ["absent", "no folder", "folder", "of another start"])
def test_a_node_that_sees_no_marker_is_named(tmp_path: Path, case: str) -> None:
    path = tmp_path / "run" / "marker"
    marker = StoreMarker.write(tmp_path, path)
    match case:
        case "absent":
            path.unlink()
        case "no folder":
            shutil.rmtree(path.parent)
        case "folder":
            path.unlink()
            path.mkdir()
        case "of another start":  # such as in a copy of the store
            StoreMarker.write(tmp_path, path)
    assert not marker.is_seen(seconds=0)
    error = marker.unshared(["node one", "node two"])
    assert isinstance(error, InputError)
    assert f"store = '{tmp_path}': expected a folder that every node" in str(error)
    assert "node one, node two" in str(error)


def test_a_marker_that_appears_late_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network file system may show it."""
    path = tmp_path / "marker"
    marker = StoreMarker.write(tmp_path, path)
    path.unlink()
    monkeypatch.setattr(time, "sleep", lambda seconds: path.write_text(marker.token))
    assert marker.is_seen()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x\npipelines.store.files.UnsharedStoreError: store = '/a': no\n", UnsharedStoreError),
        ("ray.exceptions.RayTaskError(UnsharedStoreError): store = '/a': no", UnsharedStoreError),
        ("OSError: [Errno 28] no space left: '/a'", StorageFullError),
        ("OSError: [Errno 2] no such file", None),
        ("InputError: store = '/a'", None),
    ],
)
def test_an_error_of_the_store_is_found_in_a_traceback(
    text: str, expected: type[StoreError] | None
) -> None:
    found = StoreError.found_in(text)
    assert type(found) is (expected or type(None))
    if expected is UnsharedStoreError:
        assert str(found) == "store = '/a': no"
