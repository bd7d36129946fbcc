"""Statistics of one config's metric over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import sqrt
from statistics import fmean, median, stdev
from typing import Any

from pipelines.config.objectives import Objective

_PREFIX = "confirm/"


@dataclass(frozen=True)
class SeedStatistics:
    """Statistics of the metric at the best epoch, over runs that differ in their seed alone."""

    seeds: int
    """Runs that have a value, 2 or more."""
    lost: int
    """Runs that have none: they diverged or failed."""
    mean: float
    std: float
    """Sample standard deviation (`seeds` - 1 in the denominator)."""
    sem: float
    """Standard error of the mean."""
    median: float
    best: float
    worst: float

    @classmethod
    def of(cls, values: Sequence[float | None], objective: Objective) -> SeedStatistics | None:
        """Compute the statistics of one value per seed, None for a seed that was lost.

        Returns None for fewer than two values.
        """
        known = [value for value in values if value is not None]
        if len(known) < 2:
            return None
        std = stdev(known)
        return cls(
            seeds=len(known),
            lost=len(values) - len(known),
            mean=fmean(known),
            std=std,
            sem=std / sqrt(len(known)),
            median=median(known),
            best=min(known, key=objective.cost),
            worst=max(known, key=objective.cost),
        )

    def summary(self) -> dict[str, float]:
        """Return MLflow's metrics: `confirm/mean`, `confirm/std`, …"""
        return {f"{_PREFIX}{name}": float(value) for name, value in asdict(self).items()}

    @classmethod
    def from_summary(cls, summary: Mapping[str, float]) -> SeedStatistics | None:
        """Return the statistics that `summary` wrote; None if the metrics hold none."""
        own: dict[str, Any] = {
            f.name: summary[f"{_PREFIX}{f.name}"]
            for f in fields(cls)
            if f"{_PREFIX}{f.name}" in summary
        }
        if not own:
            return None
        return cls(**{**own, "seeds": int(own["seeds"]), "lost": int(own["lost"])})

    def key(self, objective: Objective) -> tuple[float, float]:
        """Return a sort key of configs, the best first: a config that loses no seed before one
        that does, then by the mean."""
        return float(self.lost), objective.cost(self.mean)
