"""Reading the journals of a search: each file once, however often the search is ranked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.store.checkpoints import saved_epochs
from pipelines.store.journal import EpochRecord, Journal, Outcome, RunInfo
from pipelines.store.layout import RunFolder, SearchFolder


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

    @property
    def last_epoch(self) -> int:
        """The latest recorded epoch; 0 before the first."""
        return max(self.epochs, default=0)

    def counted(self) -> list[EpochRecord]:
        """Return the epochs that count, in order: up to the outcome's last epoch."""
        upto = self.outcome.last_epoch if self.outcome else self.last_epoch
        return [record for epoch, record in self.epochs.items() if epoch <= upto]


@dataclass
class _CachedRun:
    info: RunInfo | None = None
    epochs: dict[int, EpochRecord] = field(default_factory=dict)
    ended: RunRecord | None = None


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
        journal = folder.journal
        if cached.info is None:
            cached.info = journal.info()
        self._read_new_epochs(journal, cached)
        saved = tuple(saved_epochs(folder.path, folder.files))
        outcome = journal.outcome()
        record = RunRecord(folder, cached.info, outcome, dict(cached.epochs), saved)
        if outcome:
            cached.ended = record
        return record

    def read_trials(self, search: SearchFolder) -> list[RunRecord]:
        """Return the records of a search's trials, by name."""
        return [self.read(folder) for folder in search.trials()]

    def invalidate(self, folder: RunFolder) -> None:
        """Read the run's outcome and checkpoints again the next time."""
        if folder.path in self._runs:
            self._runs[folder.path].ended = None

    def _read_new_epochs(self, journal: Journal, cached: _CachedRun) -> None:
        new = [epoch for epoch in journal.epochs() if epoch not in cached.epochs]
        if new:
            cached.epochs |= {epoch: journal.record(epoch) for epoch in new}
            cached.epochs = dict(sorted(cached.epochs.items()))
