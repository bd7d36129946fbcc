"""Mode statistics: how many modes of the data a model's samples cover, how evenly (Srivastava et
al. 2017, VEEGAN), and how much samples of one mode differ. They show a mode collapse that a
Fréchet distance of few samples does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from typing import Protocol

import torch
from torch import Tensor

NO_MODE = -1
"""Assigned to a sample that belongs to no mode."""
LOST_BELOW = 0.1
"""A mode is lost if its share of the samples is below this part of its share of the data."""
THIN_BELOW = 0.1
"""Samples of a mode are all alike if they deviate from their mean less than this part of what the
data of the mode do."""
_DEVIATIONS = 3.0
"""By how many standard deviations more data must be in lost modes than chance puts there."""
_LEAST_COUNT = 5
"""Samples, or data, of a mode from which its deviation is estimated."""


@dataclass(frozen=True)
class Modes:
    """Mode statistics of samples."""

    found: int
    """Number of modes of the data with at least one sample."""
    num_modes: int
    """Number of modes that have data."""
    reverse_kl: float
    """KL(samples || data) of the distributions over modes in nats; nan if no sample belongs to a
    mode, inf if a sample belongs to a mode without data."""
    share: float
    """Part of the samples that belong to a mode, in [0, 1]."""
    lost: int
    """Number of lost modes (`LOST_BELOW`)."""
    lost_share: float
    """Part of the data that are of a lost mode."""
    lost_by_chance: float
    """The most of `lost_share` that is put down to the number of samples: three standard
    deviations above what so many samples of a perfect model have."""
    spread: float = torch.nan
    """Deviation of samples within modes, as a part of that of the data: of all modes together, or
    of the mode where it is least; nan if it is not known."""

    @property
    def collapsed(self) -> bool:
        """Whether more modes are lost than by chance, or samples within one are all alike."""
        return self.lost_share > self.lost_by_chance or self.spread < THIN_BELOW

    def __str__(self) -> str:
        lost = (
            f"{self.lost} of {self.num_modes} modes lost, with {self.lost_share:.2%} of the data"
        )
        chance = f"{self.lost_by_chance:.2%} by chance"
        spread = "spread within modes " + (
            "not known" if isnan(self.spread) else f"{self.spread:.3f} of the data's"
        )
        return f"{lost} ({chance}), {spread}"


@dataclass(frozen=True, eq=False)
class Scatter:
    """Sums of squared distances to the mean of each mode."""

    counts: Tensor
    """Rows of each mode, float64 (num_modes,)."""
    squares: Tensor
    """Sum of squared distances to the mode's mean, float64 (num_modes,)."""

    @classmethod
    def of(cls, features: Tensor, assigned: Tensor, num_modes: int) -> Scatter:
        """Sum over features (N, dim) whose modes are `assigned`, int64 (N,); -1 for none."""
        rows = assigned != NO_MODE
        x, mode = features[rows].double(), assigned[rows]
        counts = torch.bincount(mode, minlength=num_modes).double()
        totals = x.new_zeros(num_modes, x.shape[1]).index_add_(0, mode, x)
        gaps = x - (totals / counts.clamp(min=1)[:, None])[mode]
        squares = x.new_zeros(num_modes).index_add_(0, mode, gaps.square().sum(1))
        return cls(counts, squares)

    def deviation(self) -> Tensor:
        """Return the deviation within each mode, (num_modes,); nan of too few rows."""
        known = self.counts >= _LEAST_COUNT
        variance = self.squares / (self.counts - 1).clamp(min=1)
        return torch.where(known, variance, torch.nan).sqrt()


def spread(samples: Scatter, deviation: Tensor) -> float:
    """Return the deviation of samples within modes as a part of `deviation` (num_modes,), that of
    the data: the least of a mode, or that of all modes together if it is less; nan if no mode has
    enough of both."""
    own = deviation.to(samples.squares)
    usable = (own > 0) & (samples.counts > 1)
    if not bool(usable.any()):
        return torch.nan
    of_each = (samples.deviation() / own)[usable]
    expected = ((samples.counts - 1) * own.square())[usable].sum()
    together = (samples.squares[usable].sum() / expected).sqrt()
    enough = float((samples.counts - 1)[usable].sum()) >= _LEAST_COUNT
    known = [float(part) for part in of_each if not part.isnan()]
    return min([*known, *([float(together)] if enough else [])], default=torch.nan)


class ModeClassifier(Protocol):
    """Assigns samples to the modes of a data set: a mixture, or a classifier."""

    @property
    def name(self) -> str:
        """Name in metrics, such as `ring8` or `lenet-mnist`."""

    def assign(self, samples: Tensor) -> Tensor:
        """Return the mode of each of the samples (N, *shape) in [0, 1], int64 (N,); -1 for
        none."""

    def modes(self, samples: Tensor) -> Modes:
        """Compute mode statistics of samples (N, *shape)."""


def modes(
    assigned: Tensor,
    num_modes: int,
    reference: Tensor | None = None,
    spread_within: float = torch.nan,
) -> Modes:
    """Compute mode statistics.

    `assigned`: int64 (N,), the mode of each sample, such as a classifier's argmax; -1 for none.
    `reference`: counts (num_modes,) of the data's modes; by default all are equal.
    `spread_within`: what `spread` returns of the samples. Samples of no mode count in `share`
    only. Raises `ValueError` if a mode is out of range.
    """
    if len(assigned) and not NO_MODE <= int(assigned.min()) <= int(assigned.max()) < num_modes:
        raise ValueError(f"assigned: expected modes from {NO_MODE} to {num_modes - 1}")
    counts = torch.bincount(assigned[assigned != NO_MODE], minlength=num_modes).double()
    expected = torch.ones_like(counts) if reference is None else reference.to(counts)
    p, q = counts / counts.sum(), expected / expected.sum()
    reverse_kl = torch.xlogy(p, p / q)[p != 0].sum()
    lost = _lost(counts, q)
    return Modes(
        found=int(((counts > 0) & (q > 0)).sum()),
        num_modes=int((q > 0).sum()),
        reverse_kl=float(reverse_kl),
        share=float(counts.sum()) / max(len(assigned), 1),
        lost=int(lost.sum()),
        lost_share=float(q[lost].sum()),
        lost_by_chance=_lost_by_chance(q, len(assigned)),
        spread=spread_within,
    )


def _lost(counts: Tensor, q: Tensor) -> Tensor:
    """Return which modes have too few of the samples, bool (num_modes,). `q`: shares of the
    data."""
    return (counts < LOST_BELOW * counts.sum() * q) | ((counts == 0) & (q > 0))


def _lost_by_chance(q: Tensor, num: int) -> float:
    """Return the share of data in lost modes that `num` samples of a perfect model exceed in none
    of some hundred cases, because few of them are of a rare mode.

    The number of samples of a mode is taken to be Poisson's, and those of different modes to be
    independent.
    """
    most = (LOST_BELOW * num * q).ceil().sub(1).clamp(min=0)
    chance = torch.where(q > 0, torch.special.gammaincc(most + 1, (num * q).clamp(min=1e-12)), 0.0)
    deviation = (q.square() * chance * (1 - chance)).sum().sqrt()
    return float(min((q * chance).sum() + _DEVIATIONS * deviation, torch.tensor(1.0)))


def nearest_mode(samples: Tensor, centres: Tensor, std: float, within: float = 3.0) -> Tensor:
    """Return the nearest of Gaussians of equal deviation, int64 (N,); -1 if its centre is farther
    than `within` deviations (VEEGAN's "high-quality" samples are those within 3).

    `samples` (N, dim), `centres` (K, dim), `std` of each coordinate, in the same units. A sample
    that is not finite belongs to none.
    """
    distance, nearest = torch.cdist(
        samples.double(), centres.double(), compute_mode="donot_use_mm_for_euclid_dist"
    ).min(1)
    return torch.where(distance <= within * std, nearest, NO_MODE)
