"""The data set that the rest of the project sees, and how a source's arrays become one.

Readers differ in where images come from; splitting, counting and hashing are the same for all,
and are done here, so that no reader can do them differently.
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

if TYPE_CHECKING:  # importing it imports torch, which `--help` need not wait for
    from gen_models.core.data import DataSpec

Pixels = NDArray[np.uint8]
"""Images, (N, C, H, W)."""

Points = NDArray[np.float32]
"""Data that are not images, such as points of the plane (N, 2), in [0, 1]."""

Labels = NDArray[np.int64]
"""Classes, (N,), numbered from 0."""

MIN_IMAGES = 12
"""With fewer, a sixth of what is left after cutting a sixth would be no image at all."""

_BINARY_SEED = 0


class Part(NamedTuple):
    """Images and, where there are any, their labels."""

    images: Pixels | Points
    labels: Labels | None


class Source(NamedTuple):
    """What a reader found, before it is split."""

    train: Part
    test: Part | None
    """None where the data set has no test images of its own."""
    num_classes: int
    """0 where unlabelled."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images in memory, split: uint8, (N, C, H, W), C-contiguous, with 0 black and 255 white; or
    points."""

    name: str
    """As the user gave it."""
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
        """What a model family must know of the data."""
        from gen_models.core.data import DataSpec

        return DataSpec(self.train.shape[1:], self.num_classes)

    def part(self, split: Literal["train", "validation", "test"]) -> Part:
        """A split's images and labels."""
        return Part(getattr(self, split), getattr(self, f"{split}_labels"))

    def with_binary_evaluation(self) -> Dataset:
        """The data set with validation and test images drawn once, by a fixed seed: 255 with the
        probability of an intensity, else 0. Training images are drawn at each use
        (`gen_models.training.batches`). Raises `InputError` where there are no intensities."""
        images = self.train.dtype == np.uint8
        require(images, "binarise", True, f"False for data = {self.name!r}, which are no images")
        rng = np.random.default_rng(_BINARY_SEED)
        validation, test = (_binary(images, rng) for images in (self.validation, self.test))
        return replace(self, validation=validation, test=test)

    @property
    def slug(self) -> str:
        """A short name for files and MLflow experiments: letters, digits, `.`, `_` and `-`.

        Of a path the last component without its extension: `npz:/x/y.npz` is `npz-y`.
        """
        kind, colon, path = self.name.partition(":")
        if not colon:
            return kind
        last = Path(os.path.abspath(Path(path).expanduser()))
        word = last.stem if kind == "npz" else last.name
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", word).strip("-.")
        return f"{kind}-{safe}" if safe else kind


def assemble(name: str, source: Source, split_seed: int) -> Dataset:
    """Split a source and hash it.

    Test is the source's own, in its own order, or one sixth cut first; validation is one sixth of
    what is left. Cut images are in random order, so the first few of a split are a fair sample.
    Raises `InputError` if there are too few images to leave no split empty.
    """
    count = len(source.train.images)
    if count < MIN_IMAGES:
        raise InputError(f"{name}: {count} images: expected at least {MIN_IMAGES} to train on")
    rng = np.random.default_rng(split_seed)
    train, test = (source.train, source.test) if source.test else _cut_sixth(source.train, rng)
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
        num_classes=source.num_classes,
        digest=_digest(train, validation, test),
    )


def _binary(images: Pixels | Points, rng: np.random.Generator) -> Pixels:
    """An intensity v is 255 in v of 255 cases."""
    drawn = rng.integers(0, 255, size=images.shape, dtype=np.uint8)
    return np.where(drawn < images, np.uint8(255), np.uint8(0))


def _cut_sixth(part: Part, rng: np.random.Generator) -> tuple[Part, Part]:
    """Five sixths and one sixth, both drawn at random."""
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
