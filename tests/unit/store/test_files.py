"""Storage: the rules of `Files`, kept by the local one and by one in memory."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.files import MemoryFiles

from pipelines.store.files import Files, LocalFiles


@pytest.fixture(params=[LocalFiles, MemoryFiles])
def files(request: pytest.FixtureRequest) -> Files:
    storage: Files = request.param()
    return storage


def test_a_file_is_read_as_it_was_written(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "a/b/file.json"
    assert not files.exists(path) and not files.exists(path.parent)
    with pytest.raises(FileNotFoundError):
        files.read(path)
    files.write(path, "ä")
    assert files.read(path) == "ä".encode()
    files.write(path, b"\x00")
    assert files.read(path) == b"\x00"
    assert files.exists(path) and files.exists(path.parent) and not files.exists(path / "c")
    assert files.modified_ms(path) > 1_600_000_000_000


def test_a_touched_file_is_as_new_as_one_that_was_written(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(FileNotFoundError):
        files.touch(path)
    files.write(path, "x")
    before = files.modified_ms(path)
    time.sleep(0.02)
    files.touch(path)
    assert files.modified_ms(path) > before and files.read(path) == b"x"


def test_paths_are_listed_by_pattern_in_order(files: Files, tmp_path: Path) -> None:
    for name in ("b/journal/x.json", "a/journal/x.json", "c/other/x.json", "10.json", "9.json"):
        files.write(tmp_path / name, "")

    def names(folder: str, pattern: str) -> list[str]:
        return [str(p.relative_to(tmp_path)) for p in files.list(tmp_path / folder, pattern)]

    assert names("", "*/journal") == ["a/journal", "b/journal"]
    assert names("", "[0-9]*.json") == ["10.json", "9.json"]
    assert names("", "**/journal/x.json") == ["a/journal/x.json", "b/journal/x.json"]
    assert names("a", "**/x.json") == ["a/journal/x.json"]
    assert names("a", "*") == ["a/journal"]
    assert names("none", "*") == []


def test_what_is_removed_is_gone_and_may_be_absent(files: Files, tmp_path: Path) -> None:
    for name in ("a/x", "a/b/y", "ab"):
        files.write(tmp_path / name, "")
    files.remove(tmp_path / "a")
    files.remove(tmp_path / "a")
    files.remove(tmp_path / "a/x")
    assert not files.exists(tmp_path / "a") and files.exists(tmp_path / "ab")
    files.remove(tmp_path / "ab")
    assert files.list(tmp_path, "**/*") == []


def test_a_new_folder_appears_whole_and_replaces_another(files: Files, tmp_path: Path) -> None:
    target = tmp_path / "runs/checkpoint_000001"
    for content in ("old", "new"):
        with files.new_folder(target) as folder:
            assert list(folder.iterdir()) == []
            (folder / content).write_text(content)
            (folder / "below").mkdir()
            (folder / "below/deep").write_text(content)
            assert not files.exists(target / content)
            assert files.list(target.parent, "checkpoint_*/new") == []
    assert [p.name for p in files.list(target, "*")] == ["below", "new"]
    assert files.read(target / "below/deep") == b"new"
    assert [p.name for p in files.list(target.parent, "*")] == ["checkpoint_000001"]


def test_a_new_folder_that_fails_leaves_the_old_one_and_nothing_else(
    files: Files, tmp_path: Path
) -> None:
    target = tmp_path / "runs/best"
    files.write(target / "model.json", "old")

    def fill() -> None:
        with files.new_folder(target) as folder:
            (folder / "model.json").write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fill()
    assert files.read(target / "model.json") == b"old"
    assert files.list(tmp_path / "runs", "*") == [target]


def test_a_local_path_has_the_content(files: Files, tmp_path: Path) -> None:
    for name in ("a/model.json", "a/deep/file"):
        files.write(tmp_path / name, name)
    with files.local(tmp_path / "a") as folder:
        assert (folder / "model.json").read_text() == "a/model.json"
        assert (folder / "deep/file").read_text() == "a/deep/file"
    with files.local(tmp_path / "a/model.json") as path:
        assert path.read_text() == "a/model.json"


# -- a file system -------------------------------------------------------------------------------
def test_a_reader_never_sees_a_part_of_a_file(tmp_path: Path) -> None:
    path, files = tmp_path / "file", LocalFiles()
    contents = [bytes([value]) * 200_000 for value in (1, 2)]
    files.write(path, contents[0])
    ended = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not ended.is_set():
            seen.add(files.read(path))

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(100):
        files.write(path, contents[turn % 2])
    ended.set()
    reader.join()
    assert seen <= set(contents) and seen


@pytest.fixture
def no_rename(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fail(*paths: Path) -> None:
        raise OSError("no rename")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        yield


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path, no_rename: None) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError, match="no rename"):
        LocalFiles().write(tmp_path / "file", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_folder_that_a_killed_process_left_half_done_is_no_obstacle(tmp_path: Path) -> None:
    files, target = LocalFiles(), tmp_path / "best"
    killed = files.new_folder(target)
    (killed.__enter__() / "half").write_text("")
    assert files.list(tmp_path, "[!.]*") == []
    with files.new_folder(target) as folder:
        assert list(folder.iterdir()) == []
        (folder / "whole").write_text("")
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert [path.name for path in target.iterdir()] == ["whole"]
