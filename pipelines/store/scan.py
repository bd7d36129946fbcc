"""Reading the journals of a search: each file once, however often the search is ranked.

A run with a damaged file is set aside: its record says what is damaged, and whoever ranks runs
leaves it out, so that it holds up no other.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from gen_models.core.errors import DamagedError
from pipelines.store.checkpoints import saved_epochs
from pipelines.store.journal import (
    IDENTITY,
    OUTCOME,
    SCHEDULES,
    EpochRecord,
    Journal,
    Outcome,
    RunInfo,
    as_json,
)
from pipelines.store.layout import RunFolder, SearchFolder

T = TypeVar("T")
_log = logging.getLogger(__name__)


_MAX_NAMED = 20
"""Missing epochs of a run that are named."""


@dataclass(frozen=True)
class RunRecord:
    """All that the journal of a run holds, and the epochs whose checkpoint is there."""

    folder: RunFolder
    info: RunInfo | None
    outcome: Outcome | None
    epochs: Mapping[int, EpochRecord]
    """By epoch, ascending."""
    saved: tuple[int, ...]
    """Epochs that have a checkpoint, ascending."""
    damage: Mapping[str, str] = field(default_factory=dict)
    """What is wrong with the files of the journal that are damaged or missing, by their names."""

    @property
    def has_ended(self) -> bool:
        """Whether the run has an outcome, though it may be damaged."""
        return self.outcome is not None or OUTCOME in self.damage

    @property
    def last_epoch(self) -> int:
        """The latest recorded epoch; 0 before the first."""
        return max(self.epochs, default=0)

    def counted(self) -> list[EpochRecord]:
        """Return the epochs that count, in order: up to the outcome's last epoch."""
        upto = self.outcome.last_epoch if self.outcome else self.last_epoch
        return [record for epoch, record in self.epochs.items() if epoch <= upto]

    def ended_ms(self) -> int:
        """Return when the last epoch was recorded that counts, in milliseconds since 1970. The
        outcome may be written later: the champion's is once more at the end of its search."""
        counted = self.counted()
        last = counted[-1].epoch if counted else self.last_epoch
        journal = self.folder.journal
        return journal.recorded_ms(last) if last else journal.started_ms()


@dataclass
class _CachedRun:
    info: RunInfo | None = None
    epochs: dict[int, EpochRecord] = field(default_factory=dict)
    ended: RunRecord | None = None
    warned_of: frozenset[str] = frozenset()
    """Names of damaged files."""


class JournalCache:
    """Reads run folders, and keeps what cannot change: a run's info, its recorded epochs, and the
    whole record of a run that has ended.

    An epoch that is trained again has the same metrics, so a cached record stays right. Whoever
    changes an outcome, reopens a run or removes checkpoints calls `invalidate`.
    """

    def __init__(self) -> None:
        self._runs: dict[Path, _CachedRun] = {}

    def read(self, folder: RunFolder) -> RunRecord:
        """Return the run's record, reading only files that were not read before."""
        cached = self._runs.setdefault(folder.path, _CachedRun())
        if cached.ended:
            return cached.ended
        journal, damage = folder.journal, dict[str, str]()
        if cached.info is None:
            cached.info = _undamaged(journal.info, IDENTITY, damage)
        self._read_new_epochs(journal, cached, damage)
        saved = tuple(saved_epochs(folder.path, folder.files))
        outcome = _undamaged(journal.outcome, OUTCOME, damage)
        last = outcome.last_epoch if outcome else max(cached.epochs, default=0)
        missing = (epoch for epoch in range(1, last + 1) if epoch not in cached.epochs)
        for epoch in islice(missing, _MAX_NAMED):  # a damaged outcome can have any last epoch
            path = journal.record_file(epoch)
            damage.setdefault(path.name, f"{path}: missing, though later epochs are recorded")
        record = RunRecord(folder, cached.info, outcome, dict(cached.epochs), saved, damage)
        if outcome and not damage:
            cached.ended = record
        self._warn(cached, record)
        return record

    def read_trials(self, search: SearchFolder) -> list[RunRecord]:
        """Return the records of a search's trials, by name."""
        return [self.read(folder) for folder in search.trials()]

    def invalidate(self, folder: RunFolder) -> None:
        """Read the run's outcome and checkpoints again the next time."""
        if folder.path in self._runs:
            self._runs[folder.path].ended = None

    def _read_new_epochs(
        self, journal: Journal, cached: _CachedRun, damage: dict[str, str]
    ) -> None:
        """Read the epochs that are new, or were damaged."""
        new = [epoch for epoch in journal.epochs() if epoch not in cached.epochs]
        for epoch in new:
            name = journal.record_file(epoch).name
            record = _undamaged(partial(journal.record, epoch), name, damage)
            if record:
                cached.epochs[epoch] = record
        if new:
            cached.epochs = dict(sorted(cached.epochs.items()))

    def _warn(self, cached: _CachedRun, record: RunRecord) -> None:
        """Log what is damaged, once."""
        if names := record.damage.keys() - cached.warned_of:
            cached.warned_of |= names
            problems = "; ".join(record.damage[name] for name in sorted(names))
            _log.warning("%s is set aside: %s", record.folder.name, problems)


def trial_endings(records: Iterable[RunRecord], epochs: int = 0) -> list[str]:
    """Return how each trial that has ended did, without superseded ones; `damaged` if it is set
    aside, `interrupted` if it completed fewer than `epochs`, because its search was given more."""
    ended = [r for r in records if r.has_ended and (r.info or IDENTITY in r.damage)]
    outcomes = [(_ending(r.outcome, epochs) if r.outcome else "damaged", r.damage) for r in ended]
    return [
        "damaged" if damage and ending != "interrupted" else ending
        for ending, damage in outcomes
        if ending != "superseded"
    ]


def _ending(outcome: Outcome, epochs: int) -> str:
    is_short = outcome.ending == "completed" and outcome.last_epoch < epochs
    return "interrupted" if is_short else outcome.ending


def count_endings(endings: Iterable[str]) -> dict[str, float]:
    """Return the metrics of a search that count how its trials ended: `trials/completed`, …"""
    return {f"trials/{ending}": float(num) for ending, num in Counter(endings).items()}


def write_schedules(record: RunRecord) -> dict[str, str]:
    """Write what led to each epoch's state of a trial whose settings changed, from which MLflow
    alone can tell how to repeat it; return the artifacts."""
    schedules = {
        str(epoch): [asdict(segment) for segment in each.context.schedule]
        for epoch, each in record.epochs.items()
        if each.context.schedule
    }
    if not schedules:
        return {}
    folder = record.folder
    folder.files.write(folder.schedules, as_json(schedules))
    return {SCHEDULES: os.path.relpath(folder.schedules, folder.path)}


def _undamaged(read: Callable[[], T | None], name: str, damage: dict[str, str]) -> T | None:
    """Return what `read` returns; None if the file is damaged, which goes into `damage`."""
    try:
        return read()
    except DamagedError as error:
        damage[name] = str(error)
        return None
