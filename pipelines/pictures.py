"""Images as pictures: grids in PNG, small images enlarged until a person can read them."""

import io

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid

_READABLE = 56


def grid_png(images: Tensor, columns: int = 8) -> bytes:
    """Images (N, C, H, W) in [0, 1], row by row in a grid, as a PNG file."""
    factor = -(-_READABLE // max(images.shape[-2:]))
    images = images.detach().float().cpu()
    if factor > 1:
        images = F.interpolate(images, scale_factor=factor, mode="bicubic")
    grid = make_grid(images.clamp(0.0, 1.0), nrow=columns, padding=2, pad_value=0.5)
    pixels = (grid * 255.0).round().to(torch.uint8).permute(1, 2, 0).numpy()
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()


def pairs_png(images: Tensor, reconstructions: Tensor, columns: int = 8) -> bytes:
    """Rows of images, and below each row its reconstructions."""
    rows = []
    for start in range(0, len(images), columns):
        rows += [images[start : start + columns], reconstructions[start : start + columns]]
    return grid_png(torch.cat(rows), columns)
