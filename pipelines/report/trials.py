"""What a report shows of each trial, read from the trials' journals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.analysis.ranking import Standing, standings
from pipelines.config.run import Mode
from pipelines.store.journal import Journal
from pipelines.training.payload import trial_folder


@dataclass(frozen=True)
class Trial:
    """A trial in the report."""

    standing: Standing
    curve: dict[int, float]
    """The metric that ranks, by epoch."""
    seconds: float
    """Spent on its epochs' steps, by each of its workers."""
    samples: Path | None
    """The last picture of its samples, if one was drawn."""


def read_trials(
    search_folder: Path, metric: str, mode: Mode, searched: Sequence[str]
) -> list[Trial]:
    """The trials that have ended, in the ranking's order."""
    ranking = standings(search_folder, metric, mode, searched)
    return [_read(search_folder, standing, metric) for standing in ranking]


def _read(search_folder: Path, standing: Standing, metric: str) -> Trial:
    journal = Journal(trial_folder(search_folder, standing.trial_id))
    curve, seconds, samples = {}, 0.0, None
    for report in journal.reports(upto=standing.outcome.last_epoch):
        if metric in report.metrics:
            curve[report.epoch] = report.metrics[metric]
        seconds += report.metrics.get("epoch_seconds", 0.0)
        samples = report.pictures.get("samples", samples)
    return Trial(standing, curve, seconds, samples)
