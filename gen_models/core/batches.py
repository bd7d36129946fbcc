"""An epoch's batches, and each worker's rows of them.

A batch is global: the same images whatever the number of workers. Each worker takes a
contiguous part of its rows, so that a result does not depend on how many share the work.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from gen_models.core.randomness import permutation


@dataclass(frozen=True)
class Share:
    """Rows [start, stop) of a global batch of `num` rows."""

    start: int
    stop: int
    num: int

    @staticmethod
    def of(num: int, rank: int, world: int) -> "Share":
        """The rows of worker `rank` of `world`."""
        return Share(num * rank // world, num * (rank + 1) // world, num)

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)

    @property
    def size(self) -> int:
        return self.stop - self.start


def num_batches(num_images: int, batch_size: int, drop_last: bool) -> int:
    """Steps in an epoch."""
    full, rest = divmod(num_images, batch_size)
    return full + (rest > 0 and not drop_last)


def epoch_batches(
    num_images: int,
    batch_size: int,
    drop_last: bool,
    seed: int,
    epoch: int,
    rank: int = 0,
    world: int = 1,
) -> Iterator[tuple[Tensor, Share]]:
    """Indices (share.size,) of this worker's images in each batch of an epoch, and its share."""
    order = permutation(num_images, seed, epoch)
    for index in range(num_batches(num_images, batch_size, drop_last)):
        batch = order[index * batch_size : (index + 1) * batch_size]
        share = Share.of(len(batch), rank, world)
        yield batch[share.rows], share
