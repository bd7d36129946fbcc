"""When a search ends before all its trials have: its budgets of time, and a plateau of its best
value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import Any

from pipelines.config.objectives import Objective
from pipelines.config.search import Search
from pipelines.store.journal import RunStatus
from pipelines.store.scan import RunRecord
from pipelines.store.usage import Usage

SPREAD_EPOCHS = 5
TRIED: tuple[RunStatus, ...] = ("completed", "stopped_early", "diverged")
"""Ends of trials that tell something of their configs: one that failed does not."""


def spread(values: Sequence[float]) -> float:
    """Return the spread of a trial's metric: its sample standard deviation over the last
    `SPREAD_EPOCHS` epochs, with n - 1 in the denominator; 0 for fewer than two.

    It holds the noise of the metric from epoch to epoch, and what the trial still improved by in
    these epochs: of a trial that was stopped while it improved fast it is large.
    """
    last = values[-SPREAD_EPOCHS:]
    return stdev(last) if len(last) > 1 else 0.0


@dataclass
class Plateau:
    """Counts the trials since the best value has improved by more than its spread.

    The best value is compared with that of the trial that was the last to improve it so: many
    small improvements that add up to more than the spread count as one.
    """

    objective: Objective
    best: float | None = None
    """The value to improve; None before the first."""
    spread: float = 0.0
    """By how much, at least."""
    trials: int = 0
    """Trials that have ended since."""

    def add(self, values: Sequence[float]) -> None:
        """Take account of a trial that has ended. `values`: its metric at each epoch that counts;
        none of a trial that diverged."""
        value = min(values, key=self.objective.cost, default=None)
        if value is not None and self._improves(value):
            self.best, self.spread, self.trials = value, spread(values), 0
        elif self.best is not None:
            self.trials += 1

    def is_flat(self, num: int, current: float | None = None) -> bool:
        """Return whether `num` trials have ended since. `current`: the best value of trials that
        are running, which may have improved it already."""
        return self.trials >= num and (current is None or not self._improves(current))

    def _improves(self, value: float) -> bool:
        if self.best is None:
            return True
        cost = self.objective.cost
        return cost(value) < cost(self.best) - self.spread


def recorded_plateau(records: Iterable[RunRecord], objective: Objective) -> Plateau:
    """Return the plateau of the trials that have ended, in the order in which they did."""
    ended = [record for record in records if _counts(record)]
    plateau = Plateau(objective)
    for record in sorted(ended, key=RunRecord.ended_ms):
        plateau.add(counted_values(record, objective))
    return plateau


def counted_values(record: RunRecord, objective: Objective) -> list[float]:
    """Return a trial's metric at each epoch that counts; [] if it diverged."""
    if record.outcome and record.outcome.ending == "diverged":
        return []
    metric = objective.metric
    return [each.metrics[metric] for each in record.counted() if metric in each.metrics]


def _counts(record: RunRecord) -> bool:
    return record.outcome is not None and record.outcome.ending in TRIED and not record.damage


def budget_left(settings: Mapping[str, Any], usage: Usage) -> dict[str, float]:
    """Return what is left of each budget that a search has: hours of `max_hours` and
    `max_device_hours`, trials of `stop_when_flat`. `settings`: of the search, as plain values."""
    left: dict[str, float] = {}
    for name, used in (("max_hours", usage.hours), ("max_device_hours", usage.device_hours)):
        if settings.get(name) is not None:
            left[name] = max(0.0, float(settings[name]) - used)
    if settings.get("stop_when_flat") is not None:
        left["stop_when_flat"] = max(0, int(settings["stop_when_flat"]) - usage.flat_trials)
    return left


def seconds_of_budgets(left: Mapping[str, float], devices: int) -> dict[str, float]:
    """Return after how many seconds each budget of time is used up, while trials hold so many
    devices."""
    found = {"max_hours": 3600.0 * left["max_hours"]} if "max_hours" in left else {}
    if "max_device_hours" in left and devices:
        found["max_device_hours"] = 3600.0 * left["max_device_hours"] / devices
    return found


def exhausted(run: Search, usage: Usage, plateau: Plateau, current: float | None = None) -> str:
    """Return which budget of a search is used up, as the reason of its end; "" if none is.
    `current`: the best value so far, of running trials too."""
    if run.max_hours is not None and usage.hours >= run.max_hours:
        return f"--max-hours {run.max_hours:g} is used up"
    if run.max_device_hours is not None and usage.device_hours >= run.max_device_hours:
        return f"--max-device-hours {run.max_device_hours:g} is used up"
    if (num := run.stop_when_flat) is not None and plateau.is_flat(num, current):
        metric = plateau.objective.metric
        return (
            f"--stop-when-flat {num}: {plateau.trials} trials ended without a {metric} better "
            f"than {plateau.best:.6g} by more than its spread, {plateau.spread:.2g}"
        )
    return ""
