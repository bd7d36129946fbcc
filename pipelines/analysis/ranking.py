"""The ranking of a search's trials."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.analysis.best_epoch import BestEpoch, best_epoch
from pipelines.analysis.seeds import SeedStatistics
from pipelines.config.objectives import Objective
from pipelines.store.journal import Outcome
from pipelines.store.scan import RunRecord


@dataclass(frozen=True)
class TrialResult:
    """A trial that has ended."""

    trial_id: str
    config: Mapping[str, Any]
    """The searched settings, flat."""
    outcome: Outcome
    best: BestEpoch | None
    """None if it diverged, or died before its first checkpoint."""
    record: RunRecord
    """Its journal."""
    seeds: SeedStatistics | None = None
    """Of its config over other seeds, if a seed study was made."""

    def key(self, objective: Objective) -> tuple[int, float, float]:
        """Return a sort key, the best first: configs with a seed study, by their mean; the others,
        by their own value; those without a value."""
        if self.seeds:
            return 0, *self.seeds.key(objective)
        return (1, 0.0, objective.cost(self.best.value)) if self.best else (2, 0.0, 0.0)

    def values(self, objectives: Sequence[Objective]) -> list[float | None]:
        """Return the value of each objective at the best epoch; None where there is none."""
        metrics = self.best.metrics if self.best else {}
        return [metrics.get(objective.metric) for objective in objectives]


def rank_trials(
    records: Iterable[RunRecord], objective: Objective, searched: Sequence[str]
) -> list[TrialResult]:
    """Return the trials that have ended, the best first, without superseded and damaged ones.

    `searched`: the settings that differ between trials, flat names.
    """
    results = []
    for record in records:
        info, outcome = record.info, record.outcome
        if info is None or outcome is None or outcome.ending == "superseded" or record.damage:
            continue
        best = best_epoch(record, objective)
        changed = _changed_settings(best) if best else {}
        config = {name: changed.get(name, info.params[name]) for name in searched}
        seeds = SeedStatistics.from_summary(outcome.summary)
        results.append(TrialResult(info.trial_id, config, outcome, best, record, seeds))
    return sorted(results, key=lambda result: result.key(objective))


def _changed_settings(best: BestEpoch) -> dict[str, Any]:
    """Return the settings at the best epoch of a trial of population based training, flat. Version
    0.2 recorded its numbers alone, as metrics."""
    prefix = "config/"
    numbers = {k.removeprefix(prefix): v for k, v in best.metrics.items() if k.startswith(prefix)}
    return numbers | dict(best.settings)


def most_promising(
    ranking: Sequence[TrialResult], objective: Objective, num: int
) -> list[TrialResult]:
    """Return the best `num` trials by their own values, each of another config."""
    costs = [(objective.cost(each.best.value), each) for each in ranking if each.best]
    configs: dict[tuple[Any, ...], TrialResult] = {}
    for _, result in sorted(costs, key=lambda pair: pair[0]):
        configs.setdefault(tuple(result.config.items()), result)
    return list(configs.values())[:num]


def as_csv(
    ranking: Sequence[TrialResult],
    objectives: Sequence[Objective],
    pareto: Collection[str] = (),
) -> str:
    """Return the ranking as a table, a line per trial. `pareto`: ids of the trials on the Pareto
    front, which are marked if there are several objectives."""
    out = io.StringIO()
    lines = [_csv_line(result, objectives, pareto) for result in ranking]
    rows = csv.DictWriter(out, lines[0] if lines else ["trial_id"])
    rows.writeheader()
    rows.writerows(lines)
    return out.getvalue()


def _csv_line(
    result: TrialResult, objectives: Sequence[Objective], pareto: Collection[str]
) -> dict[str, Any]:
    values = result.values(objectives)
    line: dict[str, Any] = {
        "trial_id": result.trial_id,
        "outcome": result.outcome.ending,
        "epochs": result.outcome.last_epoch,
        "best_epoch": result.best.epoch if result.best else None,
    }
    line |= {each.metric: value for each, value in zip(objectives, values, strict=True)}
    if len(objectives) > 1:
        line["front"] = result.trial_id in pareto
    line["mean"] = result.seeds and result.seeds.mean
    line["std"] = result.seeds and result.seeds.std
    return line | dict(result.config)
