"""An order of a split of which the first images, however many, are a fair sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.data.dataset import Labels, Part


def stratified_order(num: int, labels: Labels | None, seed: int) -> NDArray[np.int64]:
    """Return `num` indices in an order that follows from `seed`: at random, and if `labels` (num,)
    are given with every class spread evenly, so that of the first n images each class has its
    share of n, up to one image. Each image is equally likely to be anywhere.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(num)
    if labels is None:
        return order
    shuffled = labels[order]
    position = np.empty(num)
    for label in np.unique(labels):
        (rows,) = np.nonzero(shuffled == label)
        position[rows] = (np.arange(len(rows)) + rng.random()) / len(rows)
    return order[np.argsort(position, kind="stable")]


def reordered(part: Part, order: NDArray[np.int64]) -> Part:
    """Return a split in another order."""
    return Part(part.images[order], None if part.labels is None else part.labels[order])
