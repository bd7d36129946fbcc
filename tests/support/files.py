"""Storage for tests: one in memory, and one that counts reads."""

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from pipelines.store.files import Files


class MemoryFiles:
    """A `pipelines.store.files.Files` that keeps everything in memory, as an object store keeps it
    elsewhere: files by their path, and folders only as parts of paths."""

    def __init__(self) -> None:
        self.content: dict[Path, bytes] = {}
        self.times: dict[Path, int] = {}
        self.locks: dict[Path, threading.Lock] = {}

    def read(self, path: Path) -> bytes:
        if path not in self.content:
            raise FileNotFoundError(path)
        return self.content[path]

    def write(self, path: Path, content: bytes | str) -> None:
        self.content[path] = content.encode() if isinstance(content, str) else content
        self.times[path] = time.time_ns() // 1_000_000

    def exists(self, path: Path) -> bool:
        return any(path == known or path in known.parents for known in self.content)

    def list(self, folder: Path, pattern: str) -> list[Path]:
        known = {each for path in self.content for each in (path, *path.parents)}
        below = [path for path in known if folder in path.parents]
        wanted = pattern.split("/")
        return sorted(p for p in below if _matches(p.relative_to(folder).parts, wanted))

    def remove(self, path: Path) -> None:
        for known in list(self.content):
            if path == known or path in known.parents:
                del self.content[known], self.times[known]

    def move(self, path: Path, to: Path) -> None:
        self.remove(to)
        for known, content in list(self.content.items()):
            if path == known or path in known.parents:
                self.write(to / known.relative_to(path), content)
        self.remove(path)

    def modified_ms(self, path: Path) -> int:
        if path not in self.times:
            raise FileNotFoundError(path)
        return self.times[path]

    def touch(self, path: Path) -> None:
        self.write(path, self.read(path))

    @contextmanager
    def new_folder(self, path: Path) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
            self.remove(path)
            for file in Path(folder).rglob("*"):
                if file.is_file():
                    self.write(path / file.relative_to(folder), file.read_bytes())

    @contextmanager
    def local(self, path: Path) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            for known, content in self.content.items():
                if path == known or path in known.parents:
                    file = copy / known.relative_to(path)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(content)
            yield copy

    @contextmanager
    def lock(self, path: Path, seconds: float) -> Iterator[None]:
        held = self.locks.setdefault(path, threading.Lock())
        if not held.acquire(timeout=seconds):
            raise TimeoutError(path)
        try:
            yield
        finally:
            held.release()


class CountingFiles:
    """Passes everything on to `files`, and counts how often each file is read."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.reads: Counter[str] = Counter()

    def read(self, path: Path) -> bytes:
        content = self.files.read(path)
        self.reads[path.name] += 1
        return content

    def write(self, path: Path, content: bytes | str) -> None:
        self.files.write(path, content)

    def exists(self, path: Path) -> bool:
        return self.files.exists(path)

    def list(self, folder: Path, pattern: str) -> list[Path]:
        return self.files.list(folder, pattern)

    def remove(self, path: Path) -> None:
        self.files.remove(path)

    def move(self, path: Path, to: Path) -> None:
        self.files.move(path, to)

    def modified_ms(self, path: Path) -> int:
        return self.files.modified_ms(path)

    def touch(self, path: Path) -> None:
        self.files.touch(path)

    def new_folder(self, path: Path) -> AbstractContextManager[Path]:
        return self.files.new_folder(path)

    def local(self, path: Path) -> AbstractContextManager[Path]:
        return self.files.local(path)

    def lock(self, path: Path, seconds: float) -> AbstractContextManager[None]:
        return self.files.lock(path, seconds)


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether the parts of a path match those of a glob pattern; `**` is any number of
    them."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
