"""The baselines' VAE, as one writes it in plain PyTorch: networks, loss, a training loop.

The same architecture, loss and search space as genpipe's default VAE: fully connected, 512
hidden units, Bernoulli likelihood on intensities, sums over pixels, means over images.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

HIDDEN = 512
LATENT_DIMS = (4, 8, 12, 16, 24, 32)
KL_WEIGHTS = (0.25, 4.0)
LEARNING_RATES = (3e-4, 1e-2)


@dataclass(frozen=True)
class Point:
    """A point of the search space; its default is the point of the throughput benchmarks."""

    latent_dim: int = 16
    kl_weight: float = 1.0
    lr: float = 1e-3


def points(num: int, seed: int = 0) -> list[Point]:
    """Points drawn from the search space."""
    rng = random.Random(seed)

    def log_uniform(low: float, high: float) -> float:
        return math.exp(rng.uniform(math.log(low), math.log(high)))

    return [
        Point(rng.choice(LATENT_DIMS), log_uniform(*KL_WEIGHTS), log_uniform(*LEARNING_RATES))
        for _ in range(num)
    ]


def load(path: Path) -> tuple[Tensor, Tensor]:
    """Training and validation images (N, 784) in [0, 1]: five sixths and one sixth."""
    with np.load(path) as archive:
        images = torch.from_numpy(archive["images"])
    flat = images.flatten(1).float() / 255
    cut = len(flat) // 6
    return flat[cut:], flat[:cut]


class VAE(nn.Module):
    def __init__(self, latent_dim: int, in_features: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(in_features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * latent_dim)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, in_features)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """-log p(x|z) for one z, and KL(q(z|x) || N(0, 1)): means over the batch."""
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        logits = self.decoder(z)
        nll = F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)
        kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum() / len(x)
        return nll, kl


def make(point: Point, train: Tensor) -> tuple[VAE, torch.optim.Optimizer]:
    """A model for these images and its optimizer."""
    model = VAE(point.latent_dim, train.shape[1])
    return model, torch.optim.AdamW(model.parameters(), lr=point.lr, weight_decay=0.0)


def batches(images: Tensor, batch_size: int) -> Iterator[Tensor]:
    """An epoch in random order, without a last batch that is smaller."""
    order = torch.randperm(len(images))
    for start in range(0, len(images) - batch_size + 1, batch_size):
        yield images[order[start : start + batch_size]]


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    batch_size: int,
    kl_weight: float,
) -> float:
    """One epoch; its mean loss."""
    model.train()
    total, steps = torch.zeros(()), 0
    for x in batches(images, batch_size):
        nll, kl = model(x)
        loss = nll + kl_weight * kl
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total, steps = total + loss.detach(), steps + 1
    return total.item() / max(steps, 1)


@torch.no_grad()
def validate(model: nn.Module, images: Tensor) -> float:
    """The evidence lower bound."""
    model.eval()
    nll, kl = model(images)
    return -float(nll + kl)
