"""Samples by position: sample number 700 of a seed is the same whoever makes it, and in
whichever block."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from gen_models.core.contract import Model, Networks
from gen_models.core.randomness import seeded

BLOCK = 256


def block_noise(model: Model, index: int, seed: int, device: torch.device) -> Tensor:
    """The noise of a block of samples, (256, noise_dim)."""
    generator = seeded(Generator(device), seed, "samples", index)
    return torch.randn(BLOCK, model.noise_dim, generator=generator, device=device)


@torch.no_grad()
def sample(
    model: Model, networks: Networks, num: int, seed: int, device: torch.device | str = "cpu"
) -> Tensor:
    """`num` images (num, *shape) in [0, 1]."""
    blocks = []
    for index in range(-(-num // BLOCK)):
        noise = block_noise(model, index, seed, torch.device(device))
        blocks.append(model.generate(networks, noise[: num - index * BLOCK]))
    return torch.cat(blocks)
