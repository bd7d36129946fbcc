"""Draws data as PNG pictures: images in grids, points of the plane as scatter plots.

`drawing` chooses between them by the shape of the data. The size of every grid follows from
`GRID_ROWS` and `GRID_COLUMNS`.
"""

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

GRID_ROWS, GRID_COLUMNS = 8, 8
"""Size of a picture grid: of samples, or of pairs of images, whose rows alternate."""
MAX_CLASS_COLUMNS = 20
"""Columns at most in the grid of a class-conditional model, which has one for each class."""
_MIN_IMAGE_SIDE = 56  # pixels; smaller images are enlarged by a whole factor
_BACKGROUND = 0.5  # grey level of a grid where there is no image
_GAP = 2  # pixels between the images of a grid
_SIDE = 384  # pixels along the unit square of a scatter plot
_NUM_POINTS = 2048  # points in a scatter plot


def grid_png(images: Tensor, columns: int = GRID_COLUMNS) -> bytes:
    """Return a PNG file of images (N, C, H, W) in [0, 1], row by row in a grid."""
    factor = -(-_MIN_IMAGE_SIDE // max(images.shape[-2:]))
    images = images.detach().float().cpu()
    if factor > 1:
        images = F.interpolate(images, scale_factor=factor, mode="bicubic")
    return _png(Image.fromarray(_grid(images, columns)))


def _grid(images: Tensor, columns: int) -> np.ndarray[Any, Any]:
    """Return images in a grid on grey, uint8 (height, width, 3).

    torchvision's `make_grid` is not used, because importing it imports torch's compiler, which
    costs seconds in every process that draws.
    """
    num, _, height, width = images.shape
    columns = min(columns, num)
    rows = -(-num // columns)
    row_height, column_width = height + _GAP, width + _GAP
    size = (3, rows * row_height + _GAP, columns * column_width + _GAP)
    grid = torch.full(size, _BACKGROUND)
    for index, image in enumerate(images.clamp(0.0, 1.0)):
        top = index // columns * row_height + _GAP
        left = index % columns * column_width + _GAP
        grid[:, top : top + height, left : left + width] = image
    array: np.ndarray[Any, Any] = (grid * 255.0).round().to(torch.uint8).numpy()
    return array.transpose(1, 2, 0)


def pairs_png(images: Tensor, reconstructions: Tensor, columns: int = GRID_COLUMNS) -> bytes:
    """Return a PNG file of images (N, C, H, W), each row of them followed by a row of their
    reconstructions."""
    columns = min(columns, len(images))
    rows = []
    for start in range(0, len(images), columns):
        for part in (images, reconstructions):
            row = part[start : start + columns]
            # An incomplete last row is filled up, so that the next one begins below it.
            empty = torch.full_like(images[:1], _BACKGROUND).expand(columns - len(row), -1, -1, -1)
            rows += [row, empty]
    return grid_png(torch.cat(rows), columns)


def pixels(images: Tensor) -> np.ndarray[Any, Any]:
    """Return images (N, C, H, W) in [0, 1] on the CPU as uint8 (N, H, W, C)."""
    array: np.ndarray[Any, Any] = (images * 255.0).round().byte().permute(0, 2, 3, 1).numpy()
    return array


def scatter_png(points: Tensor) -> bytes:
    """Return a PNG file of points (N, 2) in the unit square, the second coordinate upwards."""
    picture, draw = _unit_square()
    for x, y in _pixel_positions(points):
        draw.rectangle((x, y, x + 1, y + 1), fill="black")
    return _png(picture)


def moves_png(points: Tensor, reconstructions: Tensor) -> bytes:
    """Return a PNG file of points (N, 2), each with a red line to its reconstruction."""
    picture, draw = _unit_square()
    pairs = zip(_pixel_positions(points), _pixel_positions(reconstructions), strict=True)
    for start, end in pairs:
        draw.line((start, end), fill="red")
        draw.rectangle((start[0], start[1], start[0] + 1, start[1] + 1), fill="black")
    return _png(picture)


def _unit_square() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("RGB", (_SIDE, _SIDE), "white")
    return picture, ImageDraw.Draw(picture)


def _pixel_positions(points: Tensor) -> Sequence[tuple[float, float]]:
    """Return the pixel, from the top left, of the first two coordinates of each point. Points
    outside the square move to its border; nan counts as 0."""
    inside = points.detach().flatten(1)[:, :2].double().nan_to_num().clamp(0.0, 1.0)
    return [(x, _SIDE - 2 - y) for x, y in (inside * (_SIDE - 2)).tolist()]


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, format="PNG")
    return out.getvalue()


@dataclass(frozen=True)
class Drawing:
    """How data of a shape are drawn, and written as an array."""

    num_samples: int
    """Samples in a picture of samples."""
    num_pairs: int
    """Images in a picture of images with their reconstructions."""
    samples: Callable[[Tensor], bytes]
    """Returns a PNG file of samples (N, *shape) in [0, 1]."""
    pairs: Callable[[Tensor, Tensor], bytes]
    """Returns a PNG file of data (N, *shape), each beside its counterpart, such as a
    reconstruction."""
    array: Callable[[Tensor], np.ndarray[Any, Any]]
    """Returns samples on the CPU as an array for a file: uint8 (N, H, W, C), or points (N, 2)."""


_NUM_PAIRS = GRID_ROWS // 2 * GRID_COLUMNS
_POINTS = Drawing(_NUM_POINTS, _NUM_PAIRS, scatter_png, moves_png, lambda points: points.numpy())


def drawing(shape: tuple[int, ...], columns: int = GRID_COLUMNS) -> Drawing:
    """Return how data of a shape are drawn: (C, H, W) in grids, all else as points."""
    if len(shape) != 3:
        return _POINTS
    samples = partial(grid_png, columns=columns)
    return Drawing(GRID_ROWS * columns, _NUM_PAIRS, samples, pairs_png, pixels)


def drawing_of(model: Model) -> Drawing:
    """Return how a model's samples are drawn: if it is class-conditional, in a column for each
    class."""
    num_classes = min(model.spec.num_classes, MAX_CLASS_COLUMNS)
    return drawing(model.spec.shape, num_classes if is_conditional(model) else GRID_COLUMNS)
