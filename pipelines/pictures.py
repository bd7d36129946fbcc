"""Images as pictures: grids in PNG, small images enlarged until a person can read them."""

import io
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

_READABLE = 56
_GAP = 2


def grid_png(images: Tensor, columns: int = 8) -> bytes:
    """Images (N, C, H, W) in [0, 1], row by row in a grid, as a PNG file."""
    factor = -(-_READABLE // max(images.shape[-2:]))
    images = images.detach().float().cpu()
    if factor > 1:
        images = F.interpolate(images, scale_factor=factor, mode="bicubic")
    out = io.BytesIO()
    Image.fromarray(_grid(images, columns)).save(out, format="PNG")
    return out.getvalue()


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


def pairs_png(images: Tensor, reconstructions: Tensor, columns: int = 8) -> bytes:
    """Rows of images, and below each row its reconstructions."""
    rows = []
    for start in range(0, len(images), columns):
        rows += [images[start : start + columns], reconstructions[start : start + columns]]
    return grid_png(torch.cat(rows), columns)
