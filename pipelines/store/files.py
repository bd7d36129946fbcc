"""Reading and writing of files: every access to a store goes through `Files`.

What was written is durable: once a method has returned, a power loss takes none of it, and one in
the middle of it leaves what was there before. So whoever removes an old file after a new one was
written never loses both.

`LocalFiles` is a POSIX file system, which on a cluster is one that every node mounts. Another kind
of storage, such as an object store, is another implementation of the same methods.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from gen_models.core.errors import DamagedError, InputError

FULL = {errno.ENOSPC, errno.EDQUOT}
"""Error numbers of an `OSError` that says that a storage, or a quota of it, is full."""
_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES}
"""What file systems answer that sync no folders, as some mounted over a network."""
_SYNC_THREADS = 8
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux: fcntl.h, linux/fs.h


class StoreError(Exception):
    """A process cannot use its store. It ends the whole command: no trial of a search can go on,
    and none has failed."""

    @staticmethod
    def found_in(text: str) -> StoreError | None:
        """Return the error whose traceback is in `text`, as Ray passes on those of its processes;
        None if there is none."""
        if full := re.findall(rf"Error: \[Errno ({'|'.join(map(str, FULL))})\] (.*)", text):
            return StorageFullError(int(full[-1][0]), full[-1][1].strip())
        if unshared := re.findall(rf"{UnsharedStoreError.__name__}\)?: (.*)", text):
            return UnsharedStoreError(unshared[-1].strip())
        return None


class StorageFullError(StoreError, OSError):
    """A file could not be written because its storage is full. What was there before is whole."""


class UnsharedStoreError(StoreError, InputError):
    """A node of the cluster does not see the store."""


class LeaseLostError(Exception):
    """Another command works on a run (`pipelines.store.lease`): this one slept for too long."""


class Files(Protocol):
    """The operations that a store needs of its storage."""

    def read(self, path: Path) -> bytes:
        """Return the content of a file. Raises `FileNotFoundError`, and `DamagedError` in place of
        a pipe, a device or a folder."""

    def write(self, path: Path, content: bytes | str) -> None:
        """Write a file, and the folders above it. Atomic and durable: a reader sees all of it or
        the file as it was before, also after a power loss. Raises `StorageFullError`."""

    def create(self, path: Path, content: bytes | str) -> bool:
        """Write a file unless it is there already; return whether this call wrote it. Atomic: of
        several processes that create a path, one writes it, and the others find all of it."""

    def exists(self, path: Path) -> bool:
        """Return whether there is such a file or folder."""

    def list(self, folder: Path, pattern: str) -> list[Path]:
        """Return the paths in `folder` that match a glob pattern, sorted; [] if it is absent."""

    def remove(self, path: Path) -> None:
        """Remove a file, or a folder with its content. No error if it is absent."""

    def move(self, path: Path, to: Path) -> None:
        """Give a file or a folder another name beside its own. No error if it is absent."""

    def modified_ms(self, path: Path) -> int:
        """Return when a file was written, in milliseconds since 1970."""

    def touch(self, path: Path) -> None:
        """Set that time to now. Needs no room, and is not durable. Raises `FileNotFoundError`."""

    def new_folder(self, path: Path) -> AbstractContextManager[Path]:
        """Give an empty local folder to fill; it becomes `path`, whole and durable, when the block
        ends without an error, and replaces a folder of that name. One process at a time may do so
        for a path. Raises `StorageFullError`."""

    def local(self, path: Path) -> AbstractContextManager[Path]:
        """Give a local path with the content of the file or folder `path`, for the block."""

    def lock(self, path: Path, seconds: float) -> AbstractContextManager[None]:
        """Hold the lock of this name for the block, as one process or thread at a time may. A
        process that dies releases it. Raises `TimeoutError` if it is held for `seconds`. For work
        of seconds; `pipelines.store.lease` is for what may take days."""


class LocalFiles:
    """A file system of this machine, or one that every node of the cluster mounts."""

    def read(self, path: Path) -> bytes:
        # Without O_NONBLOCK, opening a pipe waits for somebody who writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # a device may have no end
            os.close(descriptor)
            raise DamagedError(f"{path}: damaged: expected a regular file")
        with open(descriptor, "rb") as file:
            return file.read()

    def write(self, path: Path, content: bytes | str) -> None:
        aside = _aside(path)
        try:
            with _full_storage_named(path):
                _make_folder(path.parent)
                with aside.open("wb") as file:
                    file.write(content.encode() if isinstance(content, str) else content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(aside, path)
                _sync(path.parent)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise

    def create(self, path: Path, content: bytes | str) -> bool:
        aside = _aside(path)
        self.write(aside, content)
        try:
            os.link(aside, path)  # unlike a rename, it fails if the path is there
            _sync(path.parent)
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
            # A reader sees all of the folder or nothing, also after a power loss.
            aside = path.with_name(f".{path.name}.removed")
            shutil.rmtree(aside, ignore_errors=True)
            with suppress(FileNotFoundError):
                path.rename(aside)
                _sync(path.parent)
            shutil.rmtree(aside, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def move(self, path: Path, to: Path) -> None:
        self.remove(to)
        with suppress(FileNotFoundError):
            path.rename(to)
            _sync(to.parent)

    def modified_ms(self, path: Path) -> int:
        return path.stat().st_mtime_ns // 1_000_000

    def touch(self, path: Path) -> None:
        os.utime(path)

    @contextmanager
    def new_folder(self, path: Path) -> Iterator[Path]:
        # One name, so that a process that was killed leaves no more than one folder behind.
        aside = path.with_name(f".{path.name}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        try:
            with _full_storage_named(path):
                _make_folder(aside)
                yield aside
                _sync_tree(aside)
                _put_in_place(aside, path)
                _sync(path.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)  # what was left of it, or what it replaces

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


@contextmanager
def _full_storage_named(path: Path) -> Iterator[None]:
    """Raise `StorageFullError` with the path, and what is free there, if the block fails because
    the storage is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise StorageFullError(error.errno, f"no space left ({_free(path)})", str(path)) from error


def _free(path: Path) -> str:
    folder = next(each for each in path.absolute().parents if each.exists())
    return f"{shutil.disk_usage(folder).free / 2**20:.1f} MiB free"


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        _sync(each.parent)


def _sync(path: Path) -> None:
    """Make a file's content durable, or the names in a folder."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC or not path.is_dir():
            raise
    finally:
        os.close(file)


def _sync_tree(folder: Path) -> None:
    """Make a folder with its content durable. The files at once: the file system writes several
    together in hardly more time than one."""
    paths = sorted(folder.rglob("*"))
    with ThreadPoolExecutor(_SYNC_THREADS) as pool:
        list(pool.map(_sync, (path for path in paths if path.is_file())))
    for path in (*reversed(paths), folder):
        if path.is_dir():
            _sync(path)


def _put_in_place(new: Path, path: Path) -> None:
    """Rename the folder `new` to `path`. A folder that is there takes the name of `new`, at the
    same moment where the file system can do that; else for a moment there is none at `path`."""
    if not path.exists():
        new.rename(path)
    elif not _exchanged(new, path):
        old = _aside(path)
        path.rename(old)
        new.rename(path)
        old.rename(new)


def _exchanged(first: Path, second: Path) -> bool:
    """Give two folders each other's names; return whether the file system can do that."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    names = os.fsencode(first), os.fsencode(second)
    return bool(rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0)


LOCAL: Files = LocalFiles()
