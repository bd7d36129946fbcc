"""Fréchet distance between Gaussians fitted to features (Heusel et al. 2017). It is called FID
only for features of the Inception network.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Moments:
    """Sums that give mean and covariance of features, and that can be added over blocks and
    workers. float64 on the features' device. Tensors may have leading dimensions, for several
    models."""

    count: Tensor
    total: Tensor
    outer: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Sum features (…, N, dim)."""
        features = features.double()
        count = features.new_full((1,), features.shape[-2])
        return cls(count, features.sum(-2), features.mT @ features)

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count, self.total + other.total, self.outer + other.outer
        )

    @property
    def mean(self) -> Tensor:
        """Mean, (…, dim)."""
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance, (…, dim, dim)."""
        mean = self.mean
        square = mean[..., :, None] * mean[..., None, :]
        return (self.outer - self.count * square) / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> Tensor:
    """Compute |mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), at least 0, of shape (…).

    The trace of the root is the sum of the square roots of the eigenvalues of the symmetric matrix
    C_a^(1/2) C_b C_a^(1/2). The result is nan where a moment is not finite.
    """
    finite = (torch.isfinite(a.outer) & torch.isfinite(b.outer)).flatten(-2).all(-1)
    blank = torch.eye(a.outer.shape[-1], dtype=a.outer.dtype, device=a.outer.device)
    first, second = (torch.where(finite[..., None, None], m.covariance, blank) for m in (a, b))
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp(min=0).sqrt()[..., None, :]) @ vectors.mT
    cross = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum(-1)
    gap = (a.mean - b.mean).square().sum(-1)
    traces = (first + second).diagonal(dim1=-2, dim2=-1).sum(-1)
    distance = (gap + traces - 2 * cross).clamp(min=0)
    return torch.where(finite, distance, torch.nan)
