"""Samples by position: sample number 700 of a seed is the same whoever makes it, and in
whichever block."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from gen_models.core.contract import Model, Networks
from gen_models.core.randomness import seeded

BLOCK = 256


@torch.no_grad()
def sample_blocks(
    model: Model,
    networks: Networks,
    num: int,
    seed: int,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Tensor]:
    """`num` samples in blocks (≤ 256, C, H, W); each worker makes every `world`-th block."""
    generator = Generator(device)
    for index in range(rank, -(-num // BLOCK), world):
        seeded(generator, seed, "samples", index)
        noise = torch.randn(BLOCK, model.noise_dim, generator=generator, device=device)
        yield model.generate(networks, noise[: num - index * BLOCK])


def sample(
    model: Model, networks: Networks, num: int, seed: int, device: torch.device | str = "cpu"
) -> Tensor:
    """`num` images (num, C, H, W) in [0, 1]."""
    return torch.cat(list(sample_blocks(model, networks, num, seed, torch.device(device))))
