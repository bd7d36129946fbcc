"""Whose model stands for a search, and by what: the best trial by its value; where the trials
differ in their seed alone, the one in the middle, by the mean of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.analysis.ranking import Standing
from pipelines.analysis.seeds import Spread
from pipelines.config.run import Search


@dataclass(frozen=True)
class Verdict:
    """What a search came to."""

    winner: Standing | None
    """Whose model stands for the search; None where no trial has one."""
    summary: dict[str, float]
    """MLflow's metrics of the search's run."""
    claim: dict[str, str | float]
    """What the alias `champion` is claimed by: the metric, its mode and a value; with the number
    of seeds, if that is a mean."""
    spread: Spread | None = None
    """Over seeds, where a config is confirmed and two seeds or more have a value."""


def verdict(run: Search, ranking: Sequence[Standing]) -> Verdict:
    """Of a search's trials, the best first."""
    return _by_mean(run, ranking) if run.confirms else _by_value(run, ranking)


def _by_value(run: Search, ranking: Sequence[Standing]) -> Verdict:
    winner = ranking[0] if ranking and ranking[0].best else None
    if winner is None or winner.best is None:
        return Verdict(None, {}, {})
    value = winner.best.value
    summary = {f"best/{run.metric}": value}
    if winner.spread:
        summary |= winner.spread.summary()
    return Verdict(winner, summary, _claim(run, value))


def _by_mean(run: Search, ranking: Sequence[Standing]) -> Verdict:
    """The model is that of the seed in the middle of the ranking, of two the worse: what the
    config gives, as its mean is what it is ranked by. The best seed's would be lucky, chosen
    among many by the images that it is judged on, and so was the seed of the search."""
    alive = [standing for standing in ranking if standing.best]
    spread = Spread.of([each.best.value if each.best else None for each in ranking], run.mode)
    winner = alive[len(alive) // 2] if alive else None
    if spread is None:
        return Verdict(winner, {}, {})
    recorded = run.confirms.value if run.confirms else None
    summary = spread.summary() | ({} if recorded is None else {"confirm/recorded": recorded})
    claim = _claim(run, spread.mean) | {"seeds": spread.seeds}
    return Verdict(winner, summary, claim, spread)


def _claim(run: Search, value: float) -> dict[str, str | float]:
    return {"metric": run.metric, "mode": run.mode, "value": value}
