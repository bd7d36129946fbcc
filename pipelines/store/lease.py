"""Leases: of the commands that would write to the folder of a run or a search, one may.

    <run folder>/lease/000003.json      `Holder`: the third command that took the lease

The file with the highest number counts. It is created exclusively: of several processes that take
over the lease of a dead one, one wins. Only the process that created a file changes it, so one
that was suspended cannot harm the one that took over from it.

A holder sets the modification time of its file every few seconds. On its own machine its process
tells whether it lives, by its id and its start time. A holder elsewhere, on another node or in
another container, is dead if its file was watched for longer than some heartbeats and did not
change. Clocks of two machines are not compared, and a clock that is set does no harm.

`Files.lock` is for work of seconds, for which others wait. It names no holder, and holds on
several machines only where their file system passes locks on.
"""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from gen_models.core.errors import DamagedError, InputError
from pipelines.store.files import LeaseLostError
from pipelines.store.journal import as_json, parsed
from pipelines.store.layout import RunFolder

_BEAT_SECONDS = 3.0
_SILENT_SECONDS = 15.0
"""After how long without a heartbeat a holder elsewhere is dead."""
_PATIENCE_SECONDS = 2.0
"""How long a living holder is waited for: `genpipe runs` holds a lease for a moment."""
_POLL_SECONDS = 0.2
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """The process that took a lease."""

    host: str
    pid: int
    started: int
    """When the process started, in clock ticks since the system did; 0 if that is not known."""
    system: str
    """Names the system within which `pid` and `started` mean one process; "" if not known."""
    since: float
    """When it took the lease, in seconds since 1970."""
    token: str
    """Unique."""
    released: bool = False

    @classmethod
    def here(cls) -> Holder:
        """Return this process as a holder from now on."""
        pid = os.getpid()
        started, since = _started(pid) or 0, time.time()
        return cls(platform.node(), pid, started, _system(), since, uuid.uuid4().hex)

    def lives(self) -> bool | None:
        """Return whether the holder's process lives; None if this process cannot see it."""
        if self.released:
            return False
        if not (self.started and self.system) or self.system != _system():
            return None
        if self.pid == os.getpid():
            return any(lease.holder.token == self.token for lease in list(_held.values()))
        started = _started(self.pid)
        return started if started is None else started == self.started

    def describe(self) -> str:
        """Return which process it is, and for how long it has held the lease."""
        age = _in_words(time.time() - self.since)
        return f"process {self.pid} on {self.host} has held it for {age}"


@dataclass(frozen=True)
class _LeaseFile:
    """A file of a lease; `holder` is None if the file is damaged."""

    path: Path
    holder: Holder | None

    @property
    def number(self) -> int:
        return int(self.path.stem)

    def lives(self) -> bool | None:
        return self.holder.lives() if self.holder else None

    def describe(self) -> str:
        return self.holder.describe() if self.holder else f"{self.path} is damaged"


class Lease:
    """A lease that this process has taken. A thread renews it until it is released or lost."""

    def __init__(self, folder: RunFolder, path: Path, holder: Holder) -> None:
        self.folder, self.path, self.holder = folder, path, holder
        self.lost = ""
        """Who has taken the lease over; "" while this process holds it."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def start(self) -> None:
        """Hold the lease from now on."""
        _held[self.folder.path] = self
        self._thread.start()

    def release(self) -> None:
        """Hold the lease no longer, so that the next command need not wait."""
        self._ended.set()
        self._thread.join()
        del _held[self.folder.path]
        with suppress(OSError):  # of a full disk; then the end of this process releases it
            if self._is_held():
                content = asdict(replace(self.holder, released=True))
                self.folder.files.write(self.path, as_json(content))

    def require_held(self) -> None:
        """Raise `LeaseLostError` if another process has taken the lease over."""
        if self.lost:
            raise LeaseLostError(
                f"{self.folder.path}: another command works on it ({self.lost}), because this one "
                f"gave no sign of life for {_SILENT_SECONDS:.0f} s, as a process that is suspended"
            )

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT_SECONDS):
            try:
                if self._is_held():
                    self.folder.files.touch(self.path)
                elif self.lost:
                    return
            except OSError as error:  # the storage is away, or somebody has moved the folder
                _log.debug("the lease of %s is not renewed: %s", self.folder.path, error)

    def _is_held(self) -> bool:
        """Return whether the lease is this process's; False too if its file is away."""
        newest = _newest(self.folder)
        if newest and newest.path == self.path and newest.holder in (self.holder, None):
            return True
        self.lost = newest.describe() if newest else ""
        return False


_held: dict[Path, Lease] = {}
"""The leases of this process, by the folder."""


@contextmanager
def holding(folder: RunFolder, field: str) -> Iterator[None]:
    """Hold the lease of a run's or a search's folder for the block.

    Of a holder whose process cannot be seen from here, waits up to 15 seconds for a sign of life.
    `field`: the setting that names the folder. Raises `InputError` if another command holds the
    lease, and `LeaseLostError` after the block if it was lost meanwhile; what the block does last
    calls `require_held` before it writes.
    """
    lease = _take(folder, field)
    try:
        yield
    finally:
        lease.release()
        lease.require_held()


def require_held(folder: RunFolder) -> None:
    """Raise `LeaseLostError` if this process had the lease of a folder and has lost it."""
    if lease := _held.get(folder.path):
        lease.require_held()


def seems_held(folder: RunFolder) -> bool:
    """Return whether a command seems to hold the lease of a folder, without waiting: of a holder
    elsewhere the last heartbeat is compared with this machine's clock."""
    newest = _newest(folder)
    if newest is None:
        return False
    lives = newest.lives()
    if lives is None:
        age = time.time() - folder.files.modified_ms(newest.path) / 1000
        return abs(age) < _SILENT_SECONDS
    return lives


def newest_holder(folder: RunFolder) -> Holder | None:
    """Return the process that was the last to take the lease of a folder; None if there was none,
    or if its file is damaged."""
    newest = _newest(folder)
    return newest.holder if newest else None


def _take(folder: RunFolder, field: str) -> Lease:
    """Take the lease when it is free. Raises `InputError` if a living process holds it."""
    patient_until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        newest = _newest(folder)
        if newest is None or _is_free(folder, newest):
            number = newest.number + 1 if newest else 1
            path, holder = folder.leases / f"{number:06d}.json", Holder.here()
            if folder.files.create(path, as_json(asdict(holder))):
                lease = Lease(folder, path, holder)
                lease.start()
                return lease
        elif time.monotonic() > patient_until:
            raise InputError(
                f"{field} = {folder.name!r}: expected one that no other command is working on: "
                f"{newest.describe()}; wait until it has ended, or stop it"
            )
        time.sleep(_POLL_SECONDS)


def _is_free(folder: RunFolder, newest: _LeaseFile) -> bool:
    lives = newest.lives()
    return _is_silent(folder, newest) if lives is None else not lives


def _is_silent(folder: RunFolder, newest: _LeaseFile) -> bool:
    """Watch the newest file of a lease; return whether no heartbeat came."""
    line = (
        "%s: %s; waiting %.0f s for a sign of life, because its process cannot be seen from here"
    )
    _log.warning(line, folder.name, newest.describe(), _SILENT_SECONDS)
    before = folder.files.modified_ms(newest.path)
    deadline = time.monotonic() + _SILENT_SECONDS
    is_over = False
    while not is_over:
        time.sleep(_POLL_SECONDS)
        is_over = time.monotonic() > deadline  # then look once more: this process may have slept
        now = _newest(folder)  # opening a file shows its present state also over a network
        if now != newest or folder.files.modified_ms(newest.path) != before:
            return False
    return True


def _newest(folder: RunFolder) -> _LeaseFile | None:
    """Return the file of a folder's lease that counts; None if nobody ever held the lease."""
    found = folder.files.list(folder.leases, "[0-9]" * 6 + ".json")
    if not found:
        return None
    path = max(found, key=lambda each: int(each.stem))
    try:
        return _LeaseFile(path, parsed(Holder, folder.files, path))
    except DamagedError:
        return _LeaseFile(path, None)


# -- processes ------------------------------------------------------------------------------------
@cache
def _system() -> str:
    """Return a name of the running system and of the process ids that this process sees; "" where
    there is no such name. Two containers on one machine see different process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> int | None:
    """Return when a process started, in clock ticks since the system did; 0 if there is none, or
    if it has ended and only its entry is left; None if the process cannot be seen.

    Unlike a time of day, this does not change when the clock is set.
    """
    try:
        content = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None if _exists(pid) else 0
    state, *fields = content.rpartition(")")[2].split()  # the name before it may hold anything
    return 0 if state in "ZX" else int(fields[18])


def _exists(pid: int) -> bool:
    """Return whether there is a process, also where /proc hides those of other users."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _in_words(seconds: float) -> str:
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
