"""Reading and writing of files: every access to a store goes through `Files`.

`LocalFiles` is a POSIX file system, which on a cluster is one that every node mounts. Another kind
of storage, such as an object store, is another implementation of the same methods.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from filelock import FileLock


class Files(Protocol):
    """The operations that a store needs of its storage."""

    def read(self, path: Path) -> bytes:
        """Return the content of a file. Raises `FileNotFoundError`."""

    def write(self, path: Path, content: bytes | str) -> None:
        """Write a file, and the folders above it. Atomic: a reader sees all of it or the file as
        it was before."""

    def create(self, path: Path, content: bytes | str) -> bool:
        """Write a file unless it is there already; return whether this call wrote it. Atomic: of
        several processes that create a path, one writes it, and the others find all of it."""

    def exists(self, path: Path) -> bool:
        """Return whether there is such a file or folder."""

    def list(self, folder: Path, pattern: str) -> list[Path]:
        """Return the paths in `folder` that match a glob pattern, sorted; [] if it is absent."""

    def remove(self, path: Path) -> None:
        """Remove a file, or a folder with its content. No error if it is absent."""

    def modified_ms(self, path: Path) -> int:
        """Return when a file was written, in milliseconds since 1970."""

    def new_folder(self, path: Path) -> AbstractContextManager[Path]:
        """Give an empty local folder to fill; it becomes `path`, whole, when the block ends
        without an error, and replaces a folder of that name. One process at a time may do so for a
        path."""

    def local(self, path: Path) -> AbstractContextManager[Path]:
        """Give a local path with the content of the file or folder `path`, for the block."""

    def lock(self, path: Path, seconds: float) -> AbstractContextManager[None]:
        """Hold the lock of this name for the block, as one process or thread at a time may. A
        process that dies releases it. Raises `TimeoutError` if it is held for `seconds`."""


class LocalFiles:
    """A file system of this machine, or one that every node of the cluster mounts."""

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def write(self, path: Path, content: bytes | str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = _aside(path)
        try:
            aside.write_bytes(content.encode() if isinstance(content, str) else content)
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise

    def create(self, path: Path, content: bytes | str) -> bool:
        aside = _aside(path)
        self.write(aside, content)
        try:
            os.link(aside, path)  # unlike a rename, it fails if the path is there
        except FileExistsError:
            return False
        finally:
            aside.unlink()
        return True

    def exists(self, path: Path) -> bool:
        return path.exists()

    def list(self, folder: Path, pattern: str) -> list[Path]:
        return sorted(folder.glob(pattern))

    def remove(self, path: Path) -> None:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def modified_ms(self, path: Path) -> int:
        return path.stat().st_mtime_ns // 1_000_000

    @contextmanager
    def new_folder(self, path: Path) -> Iterator[Path]:
        # One name, so that a process that was killed leaves no more than one folder behind.
        aside = path.with_name(f".{path.name}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            yield aside
            shutil.rmtree(path, ignore_errors=True)
            aside.rename(path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    @contextmanager
    def local(self, path: Path) -> Iterator[Path]:
        yield path

    @contextmanager
    def lock(self, path: Path, seconds: float) -> Iterator[None]:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path, timeout=seconds):
            yield


def _aside(path: Path) -> Path:
    """Return a hidden name beside `path`, on the same file system, so that a rename is atomic."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")


LOCAL: Files = LocalFiles()
