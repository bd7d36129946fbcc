"""The curve of a search: what its own journal records each time that one of its trials ends, so
that the search's page in MLflow shows how it goes on while it runs.

The step of a record is the number of ends that are recorded. A record names the end that it
counts, so that a trial which Tune ends once more after a kill is not counted twice. The journals
of the trials are the truth: an end that is not recorded here, because the process was killed
between the two, is recorded when the search goes on.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.config.objectives import Objective
from pipelines.evaluation.metric_names import BEST_CURVE
from pipelines.store.journal import EpochContext, Journal, Outcome


class SearchCurve:
    """Records the ends of a search's trials in the search's journal, after those that it holds."""

    def __init__(self, journal: Journal, objective: Objective) -> None:
        self._journal, self._objective = journal, objective
        self._best: float | None = None
        self._ends: set[str] = set()
        self.step = 0
        """The last step that is recorded; 0 before the first end."""
        for record in journal.whole_records():
            self.step = record.epoch
            self._best = record.metrics.get(BEST_CURVE)
            self._ends.add(record.context.ended_trial)

    def remove_damaged(self) -> None:
        """Remove a damaged record and all after it, whose ends are then recorded anew."""
        for step in self._journal.epochs():
            if step > self.step:
                self._journal.files.remove(self._journal.record_file(step))

    def has(self, trial_id: str, outcome: Outcome) -> bool:
        """Return whether this end of a trial is recorded."""
        return _end(trial_id, outcome) in self._ends

    def add(self, trial_id: str, outcome: Outcome, totals: Mapping[str, float]) -> None:
        """Record an end of a trial, with the best value of all trials so far. `totals`: further
        metrics of the search."""
        value = outcome.summary.get(f"best/{self._objective.metric}")
        if value is not None and (self._best is None or self._objective.better(value, self._best)):
            self._best = value
        best = {} if self._best is None else {BEST_CURVE: self._best}
        end = _end(trial_id, outcome)
        self._journal.write_epoch(
            self.step + 1, {**best, **totals}, {}, EpochContext(ended_trial=end)
        )
        self._ends.add(end)
        self.step += 1


def _end(trial_id: str, outcome: Outcome) -> str:
    """Return what tells an end of a trial from its other ones: it may fail and be tried again, or
    be given more epochs."""
    return f"{trial_id} {outcome.ending} at epoch {outcome.last_epoch}"
