"""What a fused worker's process was training when it died. Light: trial processes import it.

A worker writes a mark before it does anything for a trial, and removes it afterwards. A mark that
outlives its process names the suspects: a failure is counted for a trial that was alone, and
several are tried alone until one is found. The marks of all workers lie in one folder, which
belongs to one process of the search and is removed with it.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_RUNNING, _DIED = "running", "died"


class WorkerMarks:
    """The marks of one process of a fused worker."""

    def __init__(self, folder: str | Path) -> None:
        """`folder`: of the search's process; it exists."""
        self.process = uuid.uuid4().hex
        """Tells the worker's process apart from those before and after it."""
        self._path = _path(Path(folder), self.process, _RUNNING)

    @contextmanager
    def training(self, trial_ids: Sequence[str]) -> Iterator[None]:
        """Mark that the block works for these trials."""
        aside = self._path.with_suffix(".new")
        aside.write_text(json.dumps(list(trial_ids)))
        os.replace(aside, self._path)
        try:
            yield
        finally:
            self._path.unlink(missing_ok=True)


def trials_when_died(folder: str | Path, process: str) -> list[str]:
    """Return the trials that a worker's process, which is dead, was training; [] for none."""
    running, died = (_path(Path(folder), process, kind) for kind in (_RUNNING, _DIED))
    with suppress(FileNotFoundError):  # it was idle, or another trial has asked before
        os.replace(running, died)
    try:
        return _read(died)
    except FileNotFoundError:
        return []


def deaths(folder: str | Path) -> list[list[str]]:
    """Return the trials of each process that has died while it was training."""
    return [_read(path) for path in sorted(Path(folder).glob(f"*.{_DIED}"))]


def _path(folder: Path, process: str, kind: str) -> Path:
    return folder / f"{process}.{kind}"


def _read(path: Path) -> list[str]:
    trial_ids: list[str] = json.loads(path.read_text())
    return trial_ids
