"""Feature spaces, in which distances between sets of images are computed. A space has a name,
which is part of the names of metrics, because they depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gen_models.core.data import unit

_BLOCK = 500


class FeatureSpace(Protocol):
    """A function from data (…, *shape) in [0, 1] to features (…, dim)."""

    @property
    def name(self) -> str:
        """Name of the space and the data that it was fitted to, such as `lenet-mnist`."""

    def __call__(self, images: Tensor) -> Tensor: ...


@torch.no_grad()
def features_in_blocks(space: FeatureSpace, images: Tensor) -> Iterator[Tensor]:
    """Yield features (up to 500, dim) of data, uint8 (N, C, H, W) or floats (N, *shape) in [0, 1],
    in their order."""
    for block in torch.split(images, _BLOCK):
        yield space(unit(block))


@dataclass(frozen=True, eq=False)
class PCAFeatures:
    """Projection of flattened images on the leading principal components of reference images.

    For images without labels, from which no classifier can be trained. Features are float64.
    """

    name: str
    offset: Tensor
    """Mean of the reference images, (*shape)."""
    components: Tensor
    """Components of unit length, the leading one first, (values of an image, dim)."""

    @classmethod
    def of(cls, name: str, images: Tensor, dim: int = 64) -> PCAFeatures:
        """Fit to reference images (N, *shape) in [0, 1], N at least 2: `dim` components, or as
        many as an image has values."""
        flat = images.flatten(1).double()
        mean = flat.mean(0)
        covariance = (flat - mean).T @ (flat - mean) / (len(flat) - 1)
        vectors = torch.linalg.eigh(covariance).eigenvectors.flip(1)
        components = vectors[:, : min(dim, flat.shape[1])].contiguous()
        return cls(name, mean.view(images.shape[1:]), components)

    def __call__(self, images: Tensor) -> Tensor:
        """Map (…, *shape) to (…, dim)."""
        centred = (images.double() - self.offset).flatten(-self.offset.dim())
        features: Tensor = centred @ self.components
        return features
