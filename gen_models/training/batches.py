"""The batches of an epoch, and each worker's rows of them.

A batch is global: it has the same images for any number of workers. Each worker takes consecutive
rows of it, so that results do not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from gen_models.core.contract import Draws
from gen_models.core.data import Batch, unit
from gen_models.core.rng import permutation, seeded
from gen_models.training.draws import DrawnAhead


@dataclass(frozen=True)
class Share:
    """Rows [start, stop) of a global batch of `num` rows."""

    start: int
    stop: int
    num: int

    @staticmethod
    def of(num: int, rank: int, world: int) -> Share:
        """Return the rows of worker `rank` of `world`."""
        return Share(num * rank // world, num * (rank + 1) // world, num)

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)

    @property
    def size(self) -> int:
        return self.stop - self.start


def num_batches(num_images: int, batch_size: int, drop_last: bool) -> int:
    """Return the number of steps in an epoch."""
    full, rest = divmod(num_images, batch_size)
    return full + (rest > 0 and not drop_last)


@dataclass(frozen=True)
class TrainingImages:
    """The training data on the device, and how they are divided into batches."""

    examples: Batch
    """Images as uint8 (N, C, H, W), or floats (N, *shape) in [0, 1]."""
    batch_size: int
    drop_last: bool
    binarise: bool = False
    """Draw the values of an image at each use: 1 with the probability of its intensity, else 0
    (Salakhutdinov & Murray 2008)."""

    @property
    def steps_per_epoch(self) -> int:
        return num_batches(self.examples.num, self.batch_size, self.drop_last)

    @property
    def images_per_epoch(self) -> int:
        """Number of images in an epoch's batches."""
        return min(self.steps_per_epoch * self.batch_size, self.examples.num)

    @property
    def device(self) -> torch.device:
        return self.examples.images.device

    def order(self, seed: int, epoch: int) -> Tensor:
        """Return the order of the images in an epoch (counted from 1), int64 (N,), on the
        device."""
        return permutation(self.examples.num, seed, epoch, self.device)

    def rows(self, step: int) -> slice:
        """Return the part of the order that is the batch of a step (counted from 0)."""
        return slice(step * self.batch_size, min((step + 1) * self.batch_size, self.examples.num))

    def gather(self, indices: Tensor, thresholds: Tensor | None = None) -> Batch:
        """Return the images of `indices` (…) as floats (…, *shape) in [0, 1], and their labels
        (…).

        `thresholds` (…, *shape): binarise, to 1 where an image is above them and 0 elsewhere."""
        flat = indices.flatten()
        chosen = self.examples.images.index_select(0, flat)
        images = unit(chosen).view(*indices.shape, *chosen.shape[1:])
        if thresholds is not None:
            images = (images > thresholds).to(images.dtype)
        return Batch(images, self.examples.labels.index_select(0, flat).view(indices.shape))

    def thresholds(self, num: int, seed: int, epoch: int, first: int) -> Tensor:
        """Draw the thresholds that binarise `num` images of an epoch from its step `first` on,
        uniform (num, *shape) in [0, 1)."""
        generator = seeded(Generator(self.device), seed, "binarise", epoch, first, num)
        shape = (num, *self.examples.images.shape[1:])
        return torch.rand(shape, generator=generator, device=self.device, dtype=torch.float32)

    def seen(self, num: int) -> Batch:
        """Return the first `num` images, binarised if training binarises, the same at each call.
        Binarised ones are uint8."""
        images, labels = self.examples.rows(slice(num))
        if self.binarise:
            thresholds = self.thresholds(len(images), 0, 0, 0)  # no epoch is counted 0
            images = 255 * (unit(images) > thresholds).to(torch.uint8)
        return Batch(images, labels)

    def batches(
        self, seed: int, epoch: int, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[Batch, Share]]:
        """Yield this worker's rows of each batch of an epoch, images (share.size, *shape) in
        [0, 1], and its share."""
        alone = Epochs(self, [(seed, epoch)])
        for step in range(self.steps_per_epoch):
            batch, share = alone.batch(step, rank, world)
            yield Batch(batch.images[0], batch.labels[0]), share


class Epochs:
    """An epoch of each of K trials, which use the same images, each in its own order.

    `positions`: seed and epoch (counted from 1) of each.
    """

    def __init__(self, data: TrainingImages, positions: Sequence[tuple[int, int]]) -> None:
        self.data, self.positions = data, positions
        self.orders = torch.stack([data.order(*position) for position in positions])
        self._drawn = DrawnAhead(self._thresholds, data.steps_per_epoch, rows_dim=1)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> tuple[Batch, Share]:
        """Return a worker's images (K, share.size, *shape) in [0, 1] and labels (K, share.size) of
        a step (counted from 0), and its share."""
        rows = self.data.rows(step)
        share = Share.of(rows.stop - rows.start, rank, world)
        indices = self.orders[:, rows][:, share.rows]
        if not self.data.binarise:
            return self.data.gather(indices), share
        thresholds = self._drawn.of(share.num, step)["thresholds"]
        return self.data.gather(indices, thresholds[:, share.rows]), share

    def _thresholds(self, num: int, first: int) -> Draws:
        each = [self.data.thresholds(num, *position, first) for position in self.positions]
        return {"thresholds": torch.stack(each)}
