"""A small classifier of a labelled data set, whose last hidden layer is a feature space: images
are near each other if the classifier cannot distinguish them.

It is trained once for a data set and cached, so that all models are evaluated with the same one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from gen_models.core.data import Batch, DataSpec, unit
from gen_models.core.rng import global_seed, seeded
from gen_models.metrics.modes import Modes, Scatter, modes, spread
from gen_models.training.batches import TrainingImages

_BATCH, _LR = 128, 4e-3
_SHIFT = 1 / 14
_EPOCHS, _MIN_STEPS = 6, 600
_SEED = 0
_BLOCK = 1000


MIN_SIDE = 4
"""Pixels a side of the smallest images: two layers halve them."""


class LeNet(nn.Module):
    """LeNet-5 (LeCun et al. 1998) with rectifiers and more channels, as a feature space."""

    def __init__(self, name: str, spec: DataSpec) -> None:
        super().__init__()
        self.name, self.num_classes = name, spec.num_classes
        channels, height, width = spec.shape
        self.body = nn.Sequential(
            *_halving(channels, 16),
            *_halving(16, 32),
            nn.Flatten(),
            nn.Linear(32 * (height // 4) * (width // 4), 128),
        )
        self.head = nn.Linear(128, spec.num_classes)

    def logits(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, num_classes)."""
        logits: Tensor = self.head(F.relu(self.body(2.0 * images - 1.0)))
        return logits

    def classify(self, features: Tensor) -> Tensor:
        """Return the class of each feature (N, 128), int64 (N,)."""
        logits: Tensor = self.head(F.relu(features))
        return logits.argmax(1)

    def forward(self, images: Tensor) -> Tensor:
        """Map (…, C, H, W) to (…, 128), before the rectifier, which would set some values to 0."""
        features: Tensor = self.body(2.0 * images.flatten(0, -4) - 1.0)
        return features.view(*images.shape[:-3], -1)


def _halving(inner: int, outer: int) -> list[nn.Module]:
    return [nn.Conv2d(inner, outer, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]


def train_lenet(name: str, images: Tensor, labels: Tensor, num_classes: int) -> LeNet:
    """Train on uint8 images (N, C, H, W) with labels int64 (N,), on their device.

    Uses a fixed seed, so that weights are the same at every call on one kind of machine.
    """
    data = TrainingImages(Batch.of(images, labels), min(_BATCH, len(images)), drop_last=True)
    epochs = max(_EPOCHS, -(-_MIN_STEPS // data.steps_per_epoch))
    with global_seed(_SEED, "lenet"):
        network = LeNet(name, DataSpec(tuple(images.shape[1:]), num_classes))
    network.to(images.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LR)
    steps = epochs * data.steps_per_epoch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LR, total_steps=steps)
    for batch in _batches(data, epochs):
        optimizer.zero_grad()
        F.cross_entropy(network.logits(batch.images), batch.labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def _batches(data: TrainingImages, epochs: int) -> Iterator[Batch]:
    """Yield batches, each shifted by up to a fourteenth of the height."""
    generator = seeded(Generator(), _SEED, "shifts")
    most = int(_SHIFT * data.examples.images.shape[-2])
    for epoch in range(1, epochs + 1):
        order = data.order(_SEED, epoch)
        for step in range(data.steps_per_epoch):
            images, labels = data.gather(order[data.rows(step)])
            across = torch.randint(-most, most + 1, (2,), generator=generator)
            yield Batch(images.roll(across.tolist(), (2, 3)), labels)


@torch.no_grad()
def accuracy(network: LeNet, images: Tensor, labels: Tensor) -> float:
    """Return the part of uint8 images (N, C, H, W) that are classified correctly."""
    parts = zip(torch.split(images, _BLOCK), torch.split(labels, _BLOCK), strict=True)
    right = sum(int((network.logits(unit(part)).argmax(1) == own).sum()) for part, own in parts)
    return right / len(images)


@dataclass(frozen=True, eq=False)
class ClassModes:
    """Classes of labelled images as modes: a classifier assigns each sample to one of them."""

    network: LeNet
    real: Scatter
    """Of the features of real images within each class."""

    @classmethod
    def of(cls, network: LeNet, images: Tensor, labels: Tensor) -> ClassModes:
        """Make one whose real images are uint8 (N, C, H, W), with labels int64 (N,)."""
        with torch.no_grad():
            features = [network(unit(part)) for part in torch.split(images, _BLOCK)]
        return cls(network, Scatter.of(torch.cat(features), labels, network.num_classes))

    @property
    def name(self) -> str:
        return self.network.name

    @torch.no_grad()
    def assign(self, samples: Tensor) -> Tensor:
        """Return the class of each sample, int64 (N,), of samples (N, C, H, W) in [0, 1]."""
        return self.network.classify(self._features(samples))

    @torch.no_grad()
    def modes(self, samples: Tensor) -> Modes:
        """Compute mode statistics of samples (N, C, H, W)."""
        features, num = self._features(samples), self.network.num_classes
        assigned = self.network.classify(features)
        within = spread(Scatter.of(features, assigned, num), self.real.deviation())
        return modes(assigned, num, self.real.counts, within)

    def _features(self, samples: Tensor) -> Tensor:
        """Return the features of each sample, (N, 128)."""
        return torch.cat([self.network(part) for part in torch.split(samples, _BLOCK)])
