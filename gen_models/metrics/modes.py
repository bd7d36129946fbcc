"""Mode statistics: how many modes of the data a model's samples cover, and how evenly
(Srivastava et al. 2017, VEEGAN). They show a mode collapse that a Fréchet distance of few samples
does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

NO_MODE = -1
"""Assigned to a sample that belongs to no mode."""


@dataclass(frozen=True)
class Modes:
    """Mode statistics of samples."""

    found: int
    """Number of modes with at least one sample."""
    num_modes: int
    """Number of modes of the data."""
    reverse_kl: float
    """KL(samples || data) of the distributions over modes in nats; nan if no sample belongs to a
    mode, inf if a sample belongs to a mode without data."""
    share: float
    """Part of the samples that belong to a mode, in [0, 1]."""

    @property
    def collapsed(self) -> bool:
        """Whether some modes have no sample."""
        return self.found < self.num_modes


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


def modes(assigned: Tensor, num_modes: int, reference: Tensor | None = None) -> Modes:
    """Compute mode statistics.

    `assigned`: int64 (N,), the mode of each sample, such as a classifier's argmax; -1 for none.
    `reference`: counts (num_modes,) of the data's modes; by default all are equal. Samples of no
    mode count in `share` only. Raises `ValueError` if a mode is out of range.
    """
    if len(assigned) and not NO_MODE <= int(assigned.min()) <= int(assigned.max()) < num_modes:
        raise ValueError(f"assigned: expected modes from {NO_MODE} to {num_modes - 1}")
    counts = torch.bincount(assigned[assigned != NO_MODE], minlength=num_modes).double()
    expected = torch.ones_like(counts) if reference is None else reference.to(counts)
    p, q = counts / counts.sum(), expected / expected.sum()
    reverse_kl = torch.xlogy(p, p / q)[p != 0].sum()
    return Modes(
        found=int((counts > 0).sum()),
        num_modes=num_modes,
        reverse_kl=float(reverse_kl),
        share=float(counts.sum()) / max(len(assigned), 1),
    )


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
