"""Data as models take them: a batch, what a family must know of a data set, and the conversion
of stored images to floats in [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from gen_models.core.errors import require

_MAX_DIMENSIONS = 4
"""Of one sample: channels and up to three sizes."""


class Batch(NamedTuple):
    """Images and their class labels."""

    images: Tensor
    """Float (N, *shape) in [0, 1]; uint8 where a whole data set is kept in memory."""
    labels: Tensor
    """int64 (N,), numbered from 0; all 0 where the data have no labels."""

    @classmethod
    def of(cls, images: Tensor, labels: Tensor | None = None) -> Batch:
        """Make a batch; without `labels`, all of them are 0."""
        if labels is None:
            labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        return cls(images, labels)

    @property
    def num(self) -> int:
        """Number of images (`len` is the number of fields of the tuple)."""
        return len(self.images)

    def rows(self, chosen: slice) -> Batch:
        """Return a slice of the images and labels, as views."""
        return Batch(self.images[chosen], self.labels[chosen])


@dataclass(frozen=True)
class DataSpec:
    """What a family must know of the data to build its networks."""

    shape: tuple[int, ...]
    """Shape of one sample: (C, H, W) of an image, (2,) of a point of the plane."""
    num_classes: int = 0
    """Number of classes; 0 if the data have no labels."""

    def __post_init__(self) -> None:
        is_shape = 1 <= len(self.shape) <= _MAX_DIMENSIONS and min(self.shape) >= 1
        require(is_shape, "shape", self.shape, f"1 to {_MAX_DIMENSIONS} sizes, each at least 1")
        require(self.num_classes >= 0, "num_classes", self.num_classes, "at least 0")

    @property
    def num_values(self) -> int:
        """Number of values in one sample: the product of `shape`."""
        return prod(self.shape)


def unit(images: Tensor, device: torch.device | str | None = None) -> Tensor:
    """Return data as floats in [0, 1] on `device`: uint8 is divided by 255, floats are kept.

    The dtype is torch's default dtype.
    """
    moved = images if device is None else images.to(device, non_blocking=True)
    if moved.dtype != torch.uint8:
        return moved.to(torch.get_default_dtype())
    return moved.to(torch.get_default_dtype()).div_(255.0)


def blocks(data: Batch, size: int) -> list[Batch]:
    """Split a data set into blocks of `size` images, the last one possibly smaller. Views."""
    return [data.rows(slice(start, start + size)) for start in range(0, data.num, size)]


def floats(data: Batch) -> Batch:
    """Return a batch whose images are converted by `unit`."""
    return Batch(unit(data.images), data.labels)
