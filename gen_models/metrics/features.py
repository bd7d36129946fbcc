"""Feature spaces: what a distance between images is taken in. A metric is only as good as its
space, so a space has a name, and the name is part of the metric's.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class FeatureSpace(Protocol):
    """A function of data (…, *shape) in [0, 1] to features (…, dim)."""

    name: str
    """Of the space and the data that it was made from, such as `lenet-mnist`."""

    def __call__(self, images: Tensor) -> Tensor: ...


class PCAFeatures:
    """Projection of flattened images on the leading principal components of reference images.

    A stand-in for learned features where images have no labels to learn from. `dim` components,
    or as many as the images have values. float64.
    """

    def __init__(self, name: str, images: Tensor, dim: int = 64) -> None:
        """`images`: the reference (N, *shape) in [0, 1], N at least 2."""
        self.name = name
        self._dims = images.dim() - 1
        flat = images.flatten(1).double()
        self.offset = flat.mean(0)
        covariance = (flat - self.offset).T @ (flat - self.offset) / (len(flat) - 1)
        vectors = torch.linalg.eigh(covariance).eigenvectors.flip(1)
        self.components = vectors[:, : min(dim, flat.shape[1])]

    def __call__(self, images: Tensor) -> Tensor:
        """(…, *shape) -> (…, dim)"""
        features: Tensor = (images.flatten(-self._dims).double() - self.offset) @ self.components
        return features
