"""Modes found, and how evenly: whether a model's samples are of all the kinds that the data are
of (Srivastava et al. 2017, VEEGAN). Mode collapse is seen here and not in a Fréchet distance of
few samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

NO_MODE = -1
"""The mode of a sample that is of none."""


@dataclass(frozen=True)
class Modes:
    """What samples say of the modes of their model."""

    found: int
    """Modes with at least one sample."""
    num_modes: int
    """Modes of the data."""
    reverse_kl: float
    """KL(samples || data) of the distributions over modes, in nats; nan where no sample is of a
    mode, inf where a sample is of a mode that the data are not of."""
    share: float
    """The part of the samples that are of a mode, in [0, 1]."""

    @property
    def collapsed(self) -> bool:
        """Whether modes are missing."""
        return self.found < self.num_modes


class ModeClassifier(Protocol):
    """Whoever knows the modes of some data: their mixture, or a classifier."""

    @property
    def name(self) -> str:
        """What metrics are named after, such as `ring8` or `lenet-mnist`."""

    def assign(self, samples: Tensor) -> Tensor:
        """The mode of each of the samples (N, *shape) in [0, 1], int64 (N,); -1 for none."""

    def modes(self, samples: Tensor) -> Modes:
        """What samples (N, *shape) say of their modes together."""


def modes(assigned: Tensor, num_modes: int, reference: Tensor | None = None) -> Modes:
    """The modes of samples.

    `assigned`: int64 (N,), the mode of each sample, such as a classifier's argmax; -1 for a
    sample that is of none. `reference`: counts (num_modes,) of the data's modes; without it,
    all are equally frequent. Samples of no mode count in `share` alone. Raises `ValueError` where
    a mode is out of range.
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
    """The nearest of Gaussians of one deviation, int64 (N,): -1 where its centre is farther than
    `within` deviations (VEEGAN's "high-quality" samples are those within 3).

    `samples` (N, dim), `centres` (K, dim), `std` of each coordinate, in the same units. A sample
    that is not finite is of none.
    """
    distance, nearest = torch.cdist(
        samples.double(), centres.double(), compute_mode="donot_use_mm_for_euclid_dist"
    ).min(1)
    return torch.where(distance <= within * std, nearest, NO_MODE)
