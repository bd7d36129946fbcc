"""Data as pictures in PNG: images in grids, small ones enlarged until a person can read them, and
points of the plane scattered over it. What draws which is chosen here and nowhere else."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from gen_models.core.contract import Model, is_conditional

_READABLE = 56
_GAP = 2
_COLUMNS, _MOST_COLUMNS = 8, 20
_SIDE = 384
"""Pixels of a side of the unit square."""


def grid_png(images: Tensor, columns: int = _COLUMNS) -> bytes:
    """Images (N, C, H, W) in [0, 1], row by row in a grid, as a PNG file."""
    factor = -(-_READABLE // max(images.shape[-2:]))
    images = images.detach().float().cpu()
    if factor > 1:
        images = F.interpolate(images, scale_factor=factor, mode="bicubic")
    return _png(Image.fromarray(_grid(images, columns)))


def _grid(images: Tensor, columns: int) -> np.ndarray[Any, Any]:
    """uint8 (height, width, 3). Not torchvision's `make_grid`: importing it imports torch's
    compiler, seconds in every process that draws."""
    num, _, height, width = images.shape
    columns = min(columns, num)
    rows = -(-num // columns)
    high, wide = height + _GAP, width + _GAP
    grid = torch.full((3, rows * high + _GAP, columns * wide + _GAP), 0.5)
    for index, image in enumerate(images.clamp(0.0, 1.0)):
        top, left = index // columns * high + _GAP, index % columns * wide + _GAP
        grid[:, top : top + height, left : left + width] = image
    pixels: np.ndarray[Any, Any] = (grid * 255.0).round().to(torch.uint8).numpy()
    return pixels.transpose(1, 2, 0)


def pairs_png(images: Tensor, reconstructions: Tensor, columns: int = _COLUMNS) -> bytes:
    """Rows of images, and below each row its reconstructions."""
    rows = []
    for start in range(0, len(images), columns):
        rows += [images[start : start + columns], reconstructions[start : start + columns]]
    return grid_png(torch.cat(rows), columns)


def pixels(images: Tensor) -> np.ndarray[Any, Any]:
    """Images (N, C, H, W) in [0, 1] as uint8 (N, H, W, C)."""
    found: np.ndarray[Any, Any] = (images * 255.0).round().byte().permute(0, 2, 3, 1).numpy()
    return found


def scatter_png(points: Tensor) -> bytes:
    """Points (N, 2) of the unit square, the second coordinate upwards, as a PNG file."""
    picture, draw = _square()
    for x, y in _places(points):
        draw.rectangle((x, y, x + 1, y + 1), fill="black")
    return _png(picture)


def moves_png(points: Tensor, reconstructions: Tensor) -> bytes:
    """Points of the unit square, and from each a red line to its reconstruction."""
    picture, draw = _square()
    for here, there in zip(_places(points), _places(reconstructions), strict=True):
        draw.line((here, there), fill="red")
        draw.rectangle((here[0], here[1], here[0] + 1, here[1] + 1), fill="black")
    return _png(picture)


def _square() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("RGB", (_SIDE, _SIDE), "white")
    return picture, ImageDraw.Draw(picture)


def _places(points: Tensor) -> Sequence[tuple[float, float]]:
    """Pixels, from the top left, of the first two coordinates of each; nan counts as 0."""
    inside = points.detach().flatten(1)[:, :2].double().nan_to_num().clamp(0.0, 1.0)
    return [(x, _SIDE - 2 - y) for x, y in (inside * (_SIDE - 2)).tolist()]


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, format="PNG")
    return out.getvalue()


@dataclass(frozen=True)
class Drawing:
    """How data of a kind are shown to people, and written for other programs."""

    num_samples: int
    """Samples in a picture."""
    samples: Callable[[Tensor], bytes]
    """A PNG file of samples (N, *shape) in [0, 1]."""
    pairs: Callable[[Tensor, Tensor], bytes]
    """A PNG file of data and of what was made of them."""
    array: Callable[[Tensor], np.ndarray[Any, Any]]
    """Samples on the CPU as an array."""


_POINTS = Drawing(2048, scatter_png, moves_png, lambda points: points.numpy())


def drawing(shape: tuple[int, ...], columns: int = _COLUMNS) -> Drawing:
    """How data of a shape are drawn."""
    if len(shape) != 3:
        return _POINTS
    return Drawing(8 * columns, partial(grid_png, columns=columns), pairs_png, pixels)


def drawing_of(model: Model) -> Drawing:
    """How a model's samples are drawn: a column for each class, where it is told the class."""
    columns = min(model.spec.num_classes, _MOST_COLUMNS) if is_conditional(model) else _COLUMNS
    return drawing(model.spec.shape, columns)
