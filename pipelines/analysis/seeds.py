"""How the metric of one config spreads over seeds: whether the config is good, or was lucky."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import sqrt
from statistics import fmean, median, stdev
from typing import Any

from pipelines.config.run import Mode

_PREFIX = "confirm/"


@dataclass(frozen=True)
class Spread:
    """Of the metric at the best epoch, over runs that differ in their seed alone."""

    seeds: int
    """Runs that have a value, 2 or more."""
    lost: int
    """Runs that have none: they diverged, or failed."""
    mean: float
    std: float
    """Standard deviation over the seeds, with `seeds` - 1 in the denominator."""
    sem: float
    """Standard error of the mean."""
    median: float
    best: float
    worst: float

    @classmethod
    def of(cls, values: Sequence[float | None], mode: Mode) -> Spread | None:
        """Of one value a seed, None for a seed that was lost; None of fewer than two values."""
        known = [value for value in values if value is not None]
        if len(known) < 2:
            return None
        low, high = min(known), max(known)
        std = stdev(known)
        return cls(
            seeds=len(known),
            lost=len(values) - len(known),
            mean=fmean(known),
            std=std,
            sem=std / sqrt(len(known)),
            median=median(known),
            best=high if mode == "max" else low,
            worst=low if mode == "max" else high,
        )

    def summary(self) -> dict[str, float]:
        """As MLflow's metrics: `confirm/mean`, `confirm/std`, …"""
        return {f"{_PREFIX}{name}": float(value) for name, value in asdict(self).items()}

    @classmethod
    def from_summary(cls, summary: Mapping[str, float]) -> Spread | None:
        """What `summary` made; None where there is none among these metrics."""
        names = [field.name for field in fields(cls) if f"{_PREFIX}{field.name}" in summary]
        own: dict[str, Any] = {name: summary[f"{_PREFIX}{name}"] for name in names}
        if not own:
            return None
        return cls(**{**own, "seeds": int(own["seeds"]), "lost": int(own["lost"])})

    def key(self, mode: Mode) -> tuple[float, float]:
        """Sorts configs, the best first: one that loses no seed before one that does, and among
        those by the mean."""
        return float(self.lost), cost(self.mean, mode)


def cost(value: float, mode: Mode) -> float:
    """A metric's value as a number that is small where the value is good."""
    return -value if mode == "max" else value
