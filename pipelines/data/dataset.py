"""The `Dataset` that the rest of the project uses, and how it is assembled from arrays.

Sources differ in where images come from. Splitting, counting and hashing are the same for all
and are done here.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gen_models.core.errors import InputError, require

if TYPE_CHECKING:  # its import imports torch, and data sets are listed without torch
    from gen_models.core.data import DataSpec

Pixels = NDArray[np.uint8]
"""Images, (N, C, H, W)."""

Points = NDArray[np.float32]
"""Data that are not images, such as points of the plane (N, 2), in [0, 1]."""

Labels = NDArray[np.int64]
"""Classes, (N,), numbered from 0."""

MIN_IMAGES = 12
"""With fewer, a sixth of five sixths would be less than one image."""

_SLUG_LENGTH = 100
_BINARY_SEED = 0


class Part(NamedTuple):
    """Images, or points, of one split, and their labels where there are any."""

    images: Pixels | Points
    labels: Labels | None


class Arrays(NamedTuple):
    """The data that a source has read, before validation is cut off."""

    train: Part
    test: Part | None
    """None where the data set has no test split of its own."""
    num_classes: int
    """0 where unlabelled."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory, in three splits.

    Images are uint8, (N, C, H, W), C-contiguous, with 0 black and 255 white. Points are float32,
    (N, D), in [0, 1].
    """

    name: str
    """The name that the user gave: `mnist`, `folder:~/cats`."""
    train: Pixels | Points
    validation: Pixels | Points
    test: Pixels | Points
    train_labels: Labels | None
    """(N,); None in all three splits where the data set is unlabelled."""
    validation_labels: Labels | None
    test_labels: Labels | None
    num_classes: int
    """0 where unlabelled."""
    digest: str
    """Hash of the images and labels of all splits, in order: 32 hexadecimal digits."""

    @property
    def spec(self) -> DataSpec:
        """Shape and number of classes, from which a model family builds its networks."""
        from gen_models.core.data import DataSpec  # light: data sets are listed without torch

        return DataSpec(self.train.shape[1:], self.num_classes)

    def part(self, split: Literal["train", "validation", "test"]) -> Part:
        """Return a split's images and labels."""
        return Part(getattr(self, split), getattr(self, f"{split}_labels"))

    def with_binary_evaluation(self) -> Dataset:
        """Return a copy whose validation and test images are binary, drawn with a fixed seed.

        A pixel of intensity v becomes 255 with probability v / 255, else 0. Training images stay:
        they are drawn anew at each use (`gen_models.training.batches`). Raises `InputError` where
        the data are not images.
        """
        images = self.train.dtype == np.uint8
        require(images, "binarise", True, f"False for data = {self.name!r}, which are no images")
        rng = np.random.default_rng(_BINARY_SEED)
        validation, test = (_binary(images, rng) for images in (self.validation, self.test))
        return replace(self, validation=validation, test=test)

    @property
    def slug(self) -> str:
        """A short name for files and MLflow experiments: letters, digits, `.`, `_` and `-`.

        A path is reduced to its last component, without the extension of an archive:
        `npz:/x/y.npz` becomes `npz-y`.
        """
        kind, colon, path = self.name.partition(":")
        if not colon:
            return kind
        last = Path(os.path.abspath(Path(path).expanduser()))
        stem = last.stem if kind == "npz" else last.name
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.")[:_SLUG_LENGTH]
        return f"{kind}-{safe}" if safe else kind


def assemble(name: str, arrays: Arrays, split_seed: int) -> Dataset:
    """Split and hash the arrays of the data set `name`.

    Test is the data set's own, in its own order, or else one sixth of all; validation is one
    sixth of the rest. Images that are cut off, and those that are left, are in random order, so
    the first few of a split are a fair sample. Raises `InputError` if there are too few images,
    so that a split would be empty.
    """
    count = len(arrays.train.images)
    if count < MIN_IMAGES:
        raise InputError(f"{name}: {count} images: expected at least {MIN_IMAGES} to train on")
    rng = np.random.default_rng(split_seed)
    train, test = (arrays.train, arrays.test) if arrays.test else _cut_sixth(arrays.train, rng)
    if not len(test.images):
        raise InputError(f"{name}: 0 test images: expected at least 1")
    train, validation = _cut_sixth(train, rng)
    return Dataset(
        name=name,
        train=train.images,
        validation=validation.images,
        test=test.images,
        train_labels=train.labels,
        validation_labels=validation.labels,
        test_labels=test.labels,
        num_classes=arrays.num_classes,
        digest=_digest(train, validation, test),
    )


def _binary(images: Pixels | Points, rng: np.random.Generator) -> Pixels:
    """Draw 255 with probability v / 255 for each intensity v, else 0."""
    drawn = rng.integers(0, 255, size=images.shape, dtype=np.uint8)
    return np.where(drawn < images, np.uint8(255), np.uint8(0))


def _cut_sixth(part: Part, rng: np.random.Generator) -> tuple[Part, Part]:
    """Split at random into five sixths and one sixth."""
    count = len(part.images)
    order = rng.permutation(count)
    return _take(part, order[count // 6 :]), _take(part, order[: count // 6])


def _take(part: Part, indices: NDArray[np.int64]) -> Part:
    return Part(part.images[indices], None if part.labels is None else part.labels[indices])


def _digest(*parts: Part) -> str:
    sha = hashlib.sha256()
    for part in parts:
        for array in part:
            sha.update(b"none" if array is None else f"{array.dtype.str}{array.shape}".encode())
            sha.update(b"" if array is None else array.data.cast("B"))
    return sha.hexdigest()[:32]
