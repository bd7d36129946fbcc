"""Feature spaces of a data set: which ones it can be compared in, and how each is fitted.

A feature space is fitted once for a data set and cached in the store: `make_extractor` returns an
`Extractor`, which holds the fitted weights as arrays, so that it can be sent to other processes,
which build the space from it. A further kind of space is a class and a line of `FACTORIES`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from gen_models.core.config import parse_object
from gen_models.core.data import DataSpec, unit
from gen_models.core.errors import InputError, require, shown
from gen_models.metrics import FeatureSpace, Moments, PCAFeatures, features_in_blocks
from gen_models.metrics.inception import Inception, load_weights, require_weights
from gen_models.metrics.lenet import MIN_SIDE, LeNet, accuracy, train_lenet
from gen_models.training.cpu import cpu_thread_settings
from pipelines.data import Dataset
from pipelines.evaluation.progress import ProgressLog
from pipelines.store.cache import Arrays, cache_path, cached
from pipelines.store.layout import Store

_log = logging.getLogger(__name__)


class FittedWeights(NamedTuple):
    """The fitted parameters of a feature space."""

    weights: Arrays
    accuracy: float | None = None
    """For a classifier, the share of the test images that it classifies correctly."""


class FeatureSpaceFactory(Protocol):
    """A kind of feature space: which data it is for, and how it is fitted and built."""

    requirement: str
    """The data that it is for, in words."""

    def suits(self, dataset: Dataset) -> bool:
        """Return whether the data set can be compared in this space."""

    def name(self, dataset: Dataset) -> str:
        """Return the space's name, which is part of the names of metrics."""

    def require(self, download: bool) -> None:
        """Raise `InputError` if something is missing that may not be downloaded."""

    def fit(self, dataset: Dataset, store: Store, download: bool) -> FittedWeights:
        """Return the weights for a data set: from the store's cache, or fitted and cached now,
        which may take a minute."""

    def build(self, name: str, weights: Mapping[str, Tensor], spec: DataSpec) -> FeatureSpace:
        """Return the space, on the device of the weights."""


class _LeNetFactory:
    """The last hidden layer of a classifier that is trained on the data set."""

    requirement = f"labelled images of at least {MIN_SIDE} pixels a side"

    def suits(self, dataset: Dataset) -> bool:
        shape = dataset.spec.shape
        return dataset.num_classes > 1 and len(shape) == 3 and min(shape[1:]) >= MIN_SIDE

    def name(self, dataset: Dataset) -> str:
        return f"lenet-{dataset.slug}"

    def require(self, download: bool) -> None:
        pass

    def fit(self, dataset: Dataset, store: Store, download: bool) -> FittedWeights:
        name = self.name(dataset)
        path = store.features / f"{name}-{dataset.digest[:12]}.safetensors"
        accuracy_path = path.with_suffix(".json")

        def train() -> dict[str, Tensor]:
            _log.info("training %s, the classifier in whose features samples are compared", name)
            weights, test_accuracy = _train_classifier(name, dataset)
            # The accuracy comes first: when there are weights, there is an accuracy.
            store.files.write(accuracy_path, json.dumps({"accuracy": test_accuracy}) + "\n")
            _log.info("%s: test accuracy %.2f%%", name, 100 * test_accuracy)
            return weights

        if _read_accuracy(accuracy_path, store) is None:  # absent, or damaged
            store.files.remove(path)
        weights = _cached(path, train, store)
        return FittedWeights(weights, _read_accuracy(accuracy_path, store))

    def build(self, name: str, weights: Mapping[str, Tensor], spec: DataSpec) -> FeatureSpace:
        network = LeNet(name, spec)
        network.load_state_dict(weights, assign=True)
        return network.eval().requires_grad_(False)


class _PCAFactory:
    """The principal components of the validation data."""

    requirement = "data"

    def suits(self, dataset: Dataset) -> bool:
        return True

    def name(self, dataset: Dataset) -> str:
        return f"pca-{dataset.slug}"

    def require(self, download: bool) -> None:
        pass

    def fit(self, dataset: Dataset, store: Store, download: bool) -> FittedWeights:
        name = self.name(dataset)

        def fit_components() -> dict[str, Tensor]:
            features = PCAFeatures.of(name, unit(torch.from_numpy(dataset.validation)))
            return {"offset": features.offset, "components": features.components}

        path = cache_path(store.features, name, dataset.validation)
        return FittedWeights(_cached(path, fit_components, store))

    def build(self, name: str, weights: Mapping[str, Tensor], spec: DataSpec) -> FeatureSpace:
        space = PCAFeatures(name, **weights)
        if (space.offset.shape, len(space.components)) != (spec.shape, spec.num_values):
            raise ValueError(f"an offset of shape {tuple(space.offset.shape)}")
        return space


class _InceptionFactory:
    """The pool features of the Inception network, as the FID uses them (Heusel et al. 2017)."""

    requirement = "images of 1 or 3 channels"

    def suits(self, dataset: Dataset) -> bool:
        return len(dataset.spec.shape) == 3 and dataset.spec.shape[0] in (1, 3)

    def name(self, dataset: Dataset) -> str:
        return "inception"

    def require(self, download: bool) -> None:
        require_weights(download)

    def fit(self, dataset: Dataset, store: Store, download: bool) -> FittedWeights:
        weights = load_weights(download)
        return FittedWeights({name: tensor.numpy() for name, tensor in weights.items()})

    def build(self, name: str, weights: Mapping[str, Tensor], spec: DataSpec) -> FeatureSpace:
        device = next(iter(weights.values())).device
        return Inception(name, weights).to(device)


FACTORIES: dict[str, FeatureSpaceFactory] = {
    "lenet": _LeNetFactory(),
    "pca": _PCAFactory(),
    "inception": _InceptionFactory(),
}
"""Kinds of feature spaces by the name that `--features` takes; `auto` is the first that suits the
data set."""


def resolve(features: str, dataset: Dataset) -> str:
    """Return the key of `FACTORIES` that `features` means for a data set.

    Raises `InputError` if there is no such kind, or the data set cannot be compared in it.
    """
    suitable = [kind for kind, factory in FACTORIES.items() if factory.suits(dataset)]
    factory = FACTORIES.get(features)
    expected = f"one of {', '.join(['auto', *suitable])}"
    if factory:
        expected += f", because {dataset.name} holds no {factory.requirement}"
    require(features in ("auto", *suitable), "features", features, expected)
    return suitable[0] if features == "auto" else features


def space_name(dataset: Dataset, features: str = "auto") -> str:
    """Return the name of a data set's feature space. Raises `InputError` as `resolve` does."""
    return FACTORIES[resolve(features, dataset)].name(dataset)


def require_features(dataset: Dataset, features: str, download: bool) -> None:
    """Raise `InputError` unless the data set can be compared in `features` now: with everything
    in place, or with the permission to download it."""
    FACTORIES[resolve(features, dataset)].require(download)


@dataclass(frozen=True)
class Extractor:
    """A fitted feature space as plain arrays, to be sent to another process and built there."""

    kind: str
    """A key of `FACTORIES`."""
    name: str
    """The space's name, such as `lenet-mnist`."""
    weights: Arrays
    accuracy: float | None = None
    """Test accuracy, if the space is a classifier's."""
    real: Arrays | None = None
    """Fields of the `Moments` of the validation images' features; see `with_moments`."""

    @property
    def summary(self) -> dict[str, float]:
        """Metrics of the space itself, which a run that uses it records."""
        return {} if self.accuracy is None else {"features/accuracy": self.accuracy}

    def space(self, images: Tensor, num_classes: int) -> FeatureSpace:
        """Build the space for images (N, *shape) of this shape, on their device."""
        spec = DataSpec(tuple(images.shape[1:]), num_classes)
        weights = _tensors(self.weights, images.device)
        try:
            return FACTORIES[self.kind].build(self.name, weights, spec)
        except (RuntimeError, TypeError, ValueError) as error:  # other names or shapes
            raise InputError(
                f"feature space {self.name}: its weights in the store are damaged "
                f"({shown(str(error))}): remove the store's folder features"
            ) from error

    def moments(self, device: torch.device) -> Moments | None:
        """Return the moments in `real` on a device; None if there are none."""
        return None if self.real is None else Moments(**_tensors(self.real, device))


def make_extractor(
    dataset: Dataset, store: Store, features: str = "auto", download: bool = False
) -> Extractor:
    """Return the data set's extractor, fitted now unless the store's cache has it.

    `features`: a key of `FACTORIES` or `auto`. Raises `InputError` if the data set cannot be
    compared in it, or weights are missing and `download` is False.
    """
    kind = resolve(features, dataset)
    factory = FACTORIES[kind]
    fitted = factory.fit(dataset, store, download)
    return Extractor(kind, factory.name(dataset), fitted.weights, fitted.accuracy)


def with_moments(extractor: Extractor, dataset: Dataset, store: Store) -> Extractor:
    """Return the extractor together with the moments of the validation images' features, which
    the store caches."""
    images = torch.from_numpy(dataset.validation)

    def compute() -> dict[str, Tensor]:
        space = extractor.space(images, dataset.num_classes)
        return asdict(reduce(add, map(Moments.of, _features(space, images))))

    arrays = (*extractor.weights.values(), dataset.validation)
    path = cache_path(store.features, extractor.name, *arrays, what="-validation")
    return replace(extractor, real=_cached(path, compute, store))


def features_of_test(extractor: Extractor, dataset: Dataset, store: Store) -> np.ndarray[Any, Any]:
    """Return the features (N, dim) of the test images, which the store caches."""
    images = torch.from_numpy(dataset.test)

    def compute() -> dict[str, Tensor]:
        space = extractor.space(images, dataset.num_classes)
        return {"features": torch.cat([*_features(space, images)])}

    arrays = (*extractor.weights.values(), dataset.test)
    path = cache_path(store.features, extractor.name, *arrays, what="-test")
    return _cached(path, compute, store)["features"]


def _features(space: FeatureSpace, images: Tensor) -> Iterator[Tensor]:
    """Yield the features of images (N, *shape) in blocks, and log how far it is."""
    progress = ProgressLog(f"features in {space.name} of images", len(images))
    for features in features_in_blocks(space, images):
        yield features
        progress.advance(len(features))


def _read_accuracy(path: Path, store: Store) -> float | None:
    """Return the accuracy in a file; None if it is absent or damaged."""
    try:
        value = parse_object(store.files.read(path), str(path)).get("accuracy")
    except (OSError, InputError):
        return None
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else None


def _cached(path: Path, make: Callable[[], Mapping[str, Tensor]], store: Store) -> Arrays:
    """Return the arrays of a cache file, sorted by name. A safetensors file is read in an
    arbitrary order, and names of further files hold a digest of the arrays in order."""
    arrays = cached(
        path, lambda: {name: tensor.numpy() for name, tensor in make().items()}, store.files
    )
    return dict(sorted(arrays.items()))


def _tensors(arrays: Arrays, device: torch.device) -> dict[str, Tensor]:
    """Copy arrays to tensors: memory of Ray's object store is read-only."""
    return {name: torch.from_numpy(array.copy()).to(device) for name, array in arrays.items()}


def _train_classifier(name: str, dataset: Dataset) -> tuple[dict[str, Tensor], float]:
    """Return weights and test accuracy. Trains on one thread, so that the result does not depend
    on the number of cores; several threads are no faster for images this small."""
    assert dataset.train_labels is not None and dataset.test_labels is not None
    images, labels = torch.from_numpy(dataset.train), torch.from_numpy(dataset.train_labels)
    test, test_labels = torch.from_numpy(dataset.test), torch.from_numpy(dataset.test_labels)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with cpu_thread_settings():
            network = train_lenet(name, images, labels, dataset.num_classes)
        return network.state_dict(), accuracy(network, test, test_labels)
    finally:
        torch.set_num_threads(threads)
