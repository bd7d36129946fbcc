"""The Pareto front of a search with several objectives: its trials that no other beats in all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.analysis.ranking import Standing
from pipelines.analysis.seeds import cost
from pipelines.config.run import Objective


def values_of(standing: Standing, objectives: Sequence[Objective]) -> list[float | None]:
    """A trial's value of each objective at its best epoch; None where it has none."""
    found = standing.best.metrics if standing.best else {}
    return [found.get(metric) for metric, _ in objectives]


def front(ranking: Sequence[Standing], objectives: Sequence[Objective]) -> list[Standing]:
    """The trials of the front, in order of the first objective, the best first. Those that are
    equal in every objective are all of it; one that lacks a value is not."""
    pairs = [(standing, _costs(standing, objectives)) for standing in ranking]
    known = [(standing, costs) for standing, costs in pairs if costs]
    if not known:
        return []
    on_front = non_dominated(np.array([costs for _, costs in known]))
    kept = [pair for pair, is_on in zip(known, on_front, strict=True) if is_on]
    return [standing for standing, _ in sorted(kept, key=lambda pair: pair[1])]


def non_dominated(costs: np.ndarray[Any, np.dtype[np.float64]]) -> list[bool]:
    """Of points (N, M) that are good where they are small, those (N,) that no other is as good as
    in every objective, and better than in one. O(N² M)."""
    return [
        not ((costs <= point).all(1) & (costs < point).any(1)).any()  # by another
        for point in costs
    ]


def _costs(standing: Standing, objectives: Sequence[Objective]) -> list[float]:
    """Small where good; empty where one is missing."""
    found = values_of(standing, objectives)
    modes = [mode for _, mode in objectives]
    costs = [cost(v, mode) for v, mode in zip(found, modes, strict=True) if v is not None]
    return costs if len(costs) == len(found) else []
