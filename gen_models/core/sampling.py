"""Sampling by position: sample number 700 of a seed is the same in any block and on any worker."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from gen_models.core.contract import Model, Networks
from gen_models.core.rng import seeded

BLOCK = 256
"""Samples in a block; each block has noise of its own."""

Gather = Callable[[int, Callable[[int], Tensor], torch.device], list[Tensor]]
"""`gather(num, make, device)` returns `make(i)` for each i below `num`; it may have workers share
the calls, as `gen_models.training.distributed.gather` does."""


def block_noise(model: Model, index: int, seed: int, device: torch.device) -> Tensor:
    """Draw the noise of block number `index`, (256, noise_dim)."""
    generator = seeded(Generator(device), seed, "samples", index)
    return torch.randn(BLOCK, model.noise_dim, generator=generator, device=device)


def block_labels(labels: Tensor, index: int) -> Tensor:
    """Return the labels of block number `index`, (256,): `labels` (N,) repeat over all blocks."""
    positions = torch.arange(index * BLOCK, (index + 1) * BLOCK, device=labels.device)
    return labels[positions % len(labels)]


@torch.no_grad()
def sample(
    model: Model,
    networks: Networks,
    num: int,
    seed: int,
    device: torch.device | str = "cpu",
    labels: Tensor | None = None,
    *,
    gather: Gather | None = None,
) -> Tensor:
    """Generate `num` images (num, *shape) in [0, 1].

    `labels` (N,): the classes of a class-conditional model's images, repeated over all images; by
    default each class in turn. `gather`: lets workers share the blocks; every worker gets all
    images.
    """
    if labels is None:
        labels = torch.arange(max(model.spec.num_classes, 1), device=device)

    device = torch.device(device)

    def block(index: int) -> Tensor:
        noise = block_noise(model, index, seed, device)
        given, rest = block_labels(labels, index), num - index * BLOCK
        return model.generate(networks, noise[:rest], given[:rest])

    blocks = -(-num // BLOCK)
    parts = gather(blocks, block, device) if gather else [block(i) for i in range(blocks)]
    return torch.cat(parts)
