"""The Pareto front of a search with several objectives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.analysis.ranking import TrialResult
from pipelines.config.objectives import Objective


def pareto_front(
    ranking: Sequence[TrialResult], objectives: Sequence[Objective]
) -> list[TrialResult]:
    """Return the trials that no other beats in every objective, in order of the first objective.

    Trials that are equal in every objective are all on the front; a trial that lacks a value of
    one is not.
    """
    pairs = [(result, _costs(result, objectives)) for result in ranking]
    known = [(result, costs) for result, costs in pairs if costs]
    if not known:
        return []
    on_front = non_dominated(np.array([costs for _, costs in known]))
    kept = [pair for pair, is_on in zip(known, on_front, strict=True) if is_on]
    return [result for result, _ in sorted(kept, key=lambda pair: pair[1])]


def non_dominated(costs: np.ndarray[Any, np.dtype[np.float64]]) -> list[bool]:
    """Return for each of N points (N, M) whether no other is at least as small in every coordinate
    and smaller in one. O(N² M)."""
    return [
        not ((costs <= point).all(1) & (costs < point).any(1)).any()  # by another point
        for point in costs
    ]


def _costs(result: TrialResult, objectives: Sequence[Objective]) -> list[float]:
    """Return the cost of each objective; [] if a value is missing."""
    values = result.values(objectives)
    known = [o.cost(v) for o, v in zip(objectives, values, strict=True) if v is not None]
    return known if len(known) == len(values) else []
