"""Example data of any shape, the same on every machine and device."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from gen_models.core.data import Batch, DataSpec


def example_values(
    num: int, spec: DataSpec, seed: int = 0, device: torch.device | str = "cpu"
) -> Tensor:
    """Return data (num, *shape) in [0, 1], of the default dtype.

    Images have a bright blob each, so that there is something to learn; points of shape (2,) lie
    on a circle; data of another shape are uniform.
    """
    generator = Generator().manual_seed(seed)
    if spec.shape == (2,):
        angle = 6.0 * torch.rand(num, generator=generator)
        return (0.5 + 0.4 * torch.stack([angle.cos(), angle.sin()], dim=1)).to(device)
    if len(spec.shape) != 3:
        return torch.rand(num, *spec.shape, generator=generator).to(device)
    channels, height, width = spec.shape
    centres = torch.rand(num, 2, 1, 1, generator=generator)
    rows = torch.linspace(0, 1, height)[:, None] - centres[:, 0]
    columns = torch.linspace(0, 1, width)[None, :] - centres[:, 1]
    blobs = torch.exp(-20 * (rows.square() + columns.square()))
    return blobs[:, None].repeat(1, channels, 1, 1).to(device)


def example_batch(
    num: int, spec: DataSpec, seed: int = 0, device: torch.device | str = "cpu"
) -> Batch:
    """Return `example_values` with labels: each class in turn."""
    labels = torch.arange(num, device=device) % max(spec.num_classes, 1)
    return Batch(example_values(num, spec, seed, device), labels)
