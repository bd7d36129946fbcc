"""Fréchet distance between Gaussians fitted to features (Heusel et al. 2017), here in the space
of the principal components of the reference images: a stand-in for learned features that needs
no pretrained network. It is not the Inception FID and is not called that.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Moments:
    """Sums from which mean and covariance of features follow; they add up over blocks and
    workers. float64 on the features' device."""

    count: Tensor
    total: Tensor
    outer: Tensor

    @classmethod
    def zero(cls, dim: int, device: torch.device) -> Moments:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        return cls(zeros(1), zeros(dim), zeros(dim, dim))

    def add(self, features: Tensor) -> None:
        """Count features (N, dim) in."""
        features = features.double()
        self.count += len(features)
        self.total += features.sum(0)
        self.outer += features.T @ features

    @property
    def mean(self) -> Tensor:
        """(dim,)"""
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:
        """(dim, dim), unbiased."""
        return (self.outer - self.count * torch.outer(self.mean, self.mean)) / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """|mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), at least 0.

    nan where a moment is not finite. The trace of the root is the sum of the roots of the
    eigenvalues of C_a^(1/2) C_b C_a^(1/2), which is symmetric.
    """
    if not bool(torch.isfinite(a.outer).all() & torch.isfinite(b.outer).all()):
        return float("nan")
    values, vectors = torch.linalg.eigh(a.covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0).sqrt().sum()
    gap = (a.mean - b.mean).square().sum()
    distance = gap + a.covariance.trace() + b.covariance.trace() - 2 * cross
    return max(0.0, float(distance))


class PCAFeatures:
    """Projection of flattened images on the leading principal components of reference images.

    `dim` components, or as many as the images have values. With `moments` of the reference.
    """

    def __init__(self, images: Tensor, dim: int = 64) -> None:
        """`images`: the reference (N, C, H, W), N at least 2."""
        flat = images.flatten(1).double()
        self.offset = flat.mean(0)
        covariance = (flat - self.offset).T @ (flat - self.offset) / (len(flat) - 1)
        vectors = torch.linalg.eigh(covariance).eigenvectors.flip(1)
        self.components = vectors[:, : min(dim, flat.shape[1])]
        self.moments = Moments.zero(self.dim, images.device)
        self.moments.add(self(images))

    @property
    def dim(self) -> int:
        return int(self.components.shape[1])

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, dim), float64."""
        features: Tensor = (images.flatten(1).double() - self.offset) @ self.components
        return features
