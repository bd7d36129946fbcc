"""What another process needs to measure in a feature space, made once by who starts it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path

import torch
from torch import Tensor

from gen_models.core.data import DataSpec
from gen_models.metrics import FeatureSpace, Moments, features_in_blocks
from pipelines.data import Dataset
from pipelines.evaluation.feature_spaces import KINDS, resolve
from pipelines.store.cache import Arrays, kept, kept_path
from pipelines.tuning.progress import say

_SAY_SECONDS = 10.0


@dataclass(frozen=True)
class Extractor:
    """What another process needs to make a feature space."""

    kind: str
    """One of `pipelines.evaluation.feature_spaces.KINDS`."""
    name: str
    weights: Arrays
    accuracy: float | None = None
    """Of a classifier, on the test images."""
    real: Arrays | None = None
    """The `Moments` of the validation data's features, where they were asked for."""

    @property
    def summary(self) -> dict[str, float]:
        """What a run that uses it is told of it."""
        return {} if self.accuracy is None else {"features/accuracy": self.accuracy}

    def space(self, images: Tensor, num_classes: int) -> FeatureSpace:
        """The space of images such as these (N, *shape), on their device."""
        spec = DataSpec(tuple(images.shape[1:]), num_classes)
        weights = _tensors(self.weights, images.device)
        return KINDS[self.kind].space(self.name, weights, spec)

    def moments(self, device: torch.device) -> Moments | None:
        """Of the validation data's features, on the device."""
        return None if self.real is None else Moments(**_tensors(self.real, device))


def _tensors(arrays: Arrays, device: torch.device) -> dict[str, Tensor]:
    """Copies, for arrays of Ray's object store cannot be written to."""
    return {name: torch.from_numpy(array.copy()).to(device) for name, array in arrays.items()}


def extractor(
    dataset: Dataset, store: Path, features: str = "auto", download: bool = False
) -> Extractor:
    """The data set's, from the store if it is there; made now, and kept, if it is not.

    Raises `InputError` where the data set cannot be compared in `features`.
    """
    which = resolve(features, dataset)
    kind = KINDS[which]
    made = kind.make(dataset, store, download)
    weights = {name: tensor.numpy() for name, tensor in made.weights.items()}
    return Extractor(which, kind.name(dataset), weights, made.accuracy)


def with_moments(found: Extractor, dataset: Dataset, store: Path) -> Extractor:
    """With the moments of the validation data's features, which the store keeps."""
    validation = torch.from_numpy(dataset.validation)

    def compute() -> dict[str, Tensor]:
        space = found.space(validation, dataset.num_classes)
        return asdict(reduce(add, map(Moments.of, show_features(space, validation))))

    path = kept_path(
        store, found.name, *found.weights.values(), dataset.validation, what="-validation"
    )
    return replace(found, real={k: v.numpy() for k, v in kept(path, compute).items()})


def features_of_test(
    found: Extractor, space: FeatureSpace, dataset: Dataset, store: Path
) -> Tensor:
    """Features (N, dim) of the test data, which the store keeps. `space`: the extractor's."""
    path = kept_path(store, found.name, *found.weights.values(), dataset.test, what="-test")

    def compute() -> dict[str, Tensor]:
        return {"features": torch.cat([*show_features(space, torch.from_numpy(dataset.test))])}

    return kept(path, compute)["features"]


def show_features(space: FeatureSpace, images: Tensor) -> Iterator[Tensor]:
    """Features of data in blocks, as `features_in_blocks` has them; where they take long, the
    user is told how far they are."""
    start, done = time.monotonic(), 0
    for features in features_in_blocks(space, images):
        yield features
        done += len(features)
        if time.monotonic() - start > _SAY_SECONDS:
            start = time.monotonic()
            say(f"features in {space.name}: {done} of {len(images)} images")
