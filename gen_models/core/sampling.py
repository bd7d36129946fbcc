"""Samples by position: sample number 700 of a seed is the same whoever makes it, and in
whichever block."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from gen_models.core.contract import Model, Networks
from gen_models.core.rng import seeded
from gen_models.training.distributed import gather

BLOCK = 256


def block_noise(model: Model, index: int, seed: int, device: torch.device) -> Tensor:
    """The noise of a block of samples, (256, noise_dim)."""
    generator = seeded(Generator(device), seed, "samples", index)
    return torch.randn(BLOCK, model.noise_dim, generator=generator, device=device)


def block_labels(labels: Tensor, index: int) -> Tensor:
    """The classes of a block of samples, (256,): those of `labels` (N,) in turn, over and over."""
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
    shared: bool = False,
) -> Tensor:
    """`num` images (num, *shape) in [0, 1]. Of a class-conditional model, of the classes
    `labels` (N,) in turn, over and over; without them, of each class in turn. `shared`: workers
    make some of them each, and all of them have all."""
    if labels is None:
        labels = torch.arange(max(model.spec.num_classes, 1), device=device)

    device = torch.device(device)

    def block(index: int) -> Tensor:
        noise = block_noise(model, index, seed, device)
        given, rest = block_labels(labels, index), num - index * BLOCK
        return model.generate(networks, noise[:rest], given[:rest])

    blocks = -(-num // BLOCK)
    made = gather(blocks, block, device) if shared else [block(i) for i in range(blocks)]
    return torch.cat(made)
