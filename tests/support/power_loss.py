"""What a file system may hold after a power loss: the calls of a real run, recorded by strace, are
replayed, and what was not synced is dropped.

A file's content is durable once the file was synced, a name once its folder was. Of all else, as
POSIX has it, any part may be on disk. A rename is atomic.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

CALLS = "openat,write,fsync,rename,renameat2,unlink,unlinkat,rmdir,mkdir,link,access"
MARK = "/mark/"
"""A process that calls `os.access("/mark/…")` writes that into the trace."""

_CALL = re.compile(
    r"^(?:\d+ +)?(?P<name>\w+)\((?P<args>.*)\) += (?P<result>-?\d+)(?:<(?P<file>.*?)>)?"
)
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_FD = re.compile(r"^-?\w+<(.*?)>")


@dataclass
class Node:
    """A file, or a folder: what it holds now, and what of that is durable."""

    is_folder: bool
    content: bytes = b""
    durable: bytes = b""
    names: dict[str, Node] = field(default_factory=dict)
    durable_names: dict[str, Node] = field(default_factory=dict)
    pending: list[dict[str, Node | None]] = field(default_factory=list)
    """Changes of names that are not durable, in order; None removes a name."""

    def change(self, changes: dict[str, Node | None]) -> None:
        """Change names, at one moment."""
        _apply(self.names, changes)
        self.pending.append(changes)

    def sync(self) -> None:
        self.durable = self.content
        self.durable_names, self.pending = dict(self.names), []


class Disk:
    """The part of a file system below `root`, as the calls so far have left it."""

    def __init__(self, root: Path) -> None:
        self.root, self.top = root, Node(True)

    def find(self, path: str) -> Node | None:
        """Return what is at a path; None if it is not below the root, or absent."""
        node: Node | None = self.top
        if not Path(path).is_relative_to(self.root):
            return None
        for part in Path(path).relative_to(self.root).parts:
            node = node.names.get(part) if node else None
        return node

    def above(self, path: str) -> Node | None:
        return self.find(str(Path(path).parent)) if path != str(self.root) else None

    def call(self, name: str, paths: Sequence[str], flags: str, content: bytes) -> bool:
        """Apply a call; return whether it changed anything."""
        path = paths[0]
        node, folder, last = self.find(path), self.above(path), Path(path).name
        if name == "fsync" and node:
            node.sync()
            return True
        if folder is None:
            return False
        match name:
            case "openat" if "O_CREAT" in flags and node is None:
                folder.change({last: Node(False)})
            case "openat" if "O_TRUNC" in flags and node:
                node.content = b""
            case "mkdir":
                folder.change({last: Node(True)})
            case "write" if node:
                node.content += content
            case "unlink" | "unlinkat" | "rmdir":
                folder.change({last: None})
            case "link":
                self._require_folder(paths[1]).change({Path(paths[1]).name: node})
            case "rename" | "renameat2":
                self._rename(node, folder, last, paths[1], exchange="EXCHANGE" in flags)
            case _:
                return False
        return True

    def _rename(
        self, node: Node | None, folder: Node, last: str, to: str, *, exchange: bool
    ) -> None:
        target, other = self._require_folder(to), self.find(to)
        assert target is folder, "a rename across folders is not modelled"
        folder.change({last: other if exchange else None, Path(to).name: node})

    def _require_folder(self, path: str) -> Node:
        folder = self.above(path)
        assert folder
        return folder

    def write_after_loss(self, into: Path, draw: Random, *, names: float, contents: float) -> None:
        """Write what is left after a power loss into a new folder. Of the changes of names and of
        contents that are not durable, these shares have reached the disk."""
        shutil.rmtree(into, ignore_errors=True)
        _write(self.top, into, draw, names, contents)


def _write(node: Node, path: Path, draw: Random, kept: float, contents: float) -> None:
    if not node.is_folder:
        reached = node.content if draw.random() < contents else node.durable
        path.write_bytes(reached)
        return
    path.mkdir()
    names: dict[str, Node] = dict(node.durable_names)
    for changes in node.pending:
        if draw.random() < kept:
            _apply(names, changes)
    for name, each in names.items():
        _write(each, path / name, draw, kept, contents)


def _apply(names: dict[str, Node], changes: dict[str, Node | None]) -> None:
    for name, node in changes.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def replay(trace: Path, disk: Disk) -> Iterator[str | None]:
    """Apply the calls of a trace one by one; after each that changed the disk give None, and after
    a mark its text."""
    unfinished: dict[str, str] = {}
    for line in trace.read_text(errors="replace").splitlines():
        thread = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>"):
            unfinished[thread] = line.removesuffix("<unfinished ...>").rstrip()
            continue
        if resumed := re.match(r"\d+ +<\.\.\. \w+ resumed>(.*)", line):
            line = unfinished.pop(thread, "") + resumed[1]
        if not (call := _CALL.match(line)):
            continue
        name, args = call["name"], call["args"]
        texts = [_unquoted(text) for text in _TEXT.findall(args)]
        if name == "access" and texts and texts[0].decode().startswith(MARK):
            yield texts[0].decode().removeprefix(MARK)
        if int(call["result"]) < 0:
            continue
        if name in ("write", "fsync"):
            fd = _FD.match(args)
            paths = [_readable(fd[1])] if fd else []
            content = texts[0] if name == "write" and texts else b""
        else:
            paths, content = [_full(text.decode(), args) for text in texts], b""
        if paths and disk.call(name, paths, _TEXT.sub("", args), content):
            yield None


def _full(path: str, args: str) -> str:
    """Return a path in full: that of `unlinkat` and of `openat` may be relative to a folder."""
    folder = _FD.match(args)
    return str(Path(_readable(folder[1])) / path) if folder else path


def _readable(path: str) -> str:
    """Return the path of an open file, which strace writes like a text."""
    return _unquoted(path).decode() if "\\x" in path else path


def _unquoted(text: str) -> bytes:
    return bytes(int(each, 16) for each in text.split("\\x")[1:])
