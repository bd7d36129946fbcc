"""The kinds of feature spaces, and which of them a data set can be compared in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from gen_models.core.data import DataSpec, unit
from gen_models.core.errors import require
from gen_models.metrics import FeatureSpace, PCAFeatures
from gen_models.metrics.inception import Inception, load_weights, require_weights
from gen_models.metrics.lenet import LeNet, accuracy, train_lenet
from gen_models.training.cpu import prepare_thread
from pipelines.data import Dataset
from pipelines.store.cache import kept, kept_path
from pipelines.store.journal import write_whole
from pipelines.tuning.progress import say


class Made(NamedTuple):
    """What a space is made from."""

    weights: dict[str, Tensor]
    accuracy: float | None = None
    """The share of the test images whose class the space's network tells, if it tells classes."""


class Kind(Protocol):
    """A kind of feature space: what it asks of data, and how one is made."""

    wants: str
    """The data that it is for."""

    def suits(self, dataset: Dataset) -> bool:
        """Whether it is for this data set."""

    def name(self, dataset: Dataset) -> str:
        """The space's, which metrics are named after."""

    def require(self, download: bool) -> None:
        """Raise `InputError` where something is missing, and may not be downloaded."""

    def make(self, dataset: Dataset, store: Path, download: bool) -> Made:
        """What a data set's space is made from; the first time it may take a minute."""

    def space(self, name: str, weights: Mapping[str, Tensor], spec: DataSpec) -> FeatureSpace:
        """The space, on the device of the weights."""


class _LeNet:
    """The features of a data set's classifier, which is trained once."""

    wants = "labelled images"

    def suits(self, dataset: Dataset) -> bool:
        return dataset.num_classes > 1 and len(dataset.spec.shape) == 3

    def name(self, dataset: Dataset) -> str:
        return f"lenet-{dataset.slug}"

    def require(self, download: bool) -> None:
        pass

    def make(self, dataset: Dataset, store: Path, download: bool) -> Made:
        name = self.name(dataset)
        path = store / "features" / f"{name}-{dataset.digest[:12]}.safetensors"
        known = path.with_suffix(".json")

        def train() -> dict[str, Tensor]:
            say(f"training {name}, the classifier whose features samples are compared in, once")
            weights, right = _train(name, dataset)
            write_whole(known, json.dumps({"accuracy": right}) + "\n")
            say(f"{name}: {right:.2%} of the test images told apart")
            return weights

        weights = kept(path, train)
        return Made(weights, json.loads(known.read_text())["accuracy"])

    def space(self, name: str, weights: Mapping[str, Tensor], spec: DataSpec) -> FeatureSpace:
        network = LeNet(name, spec)
        network.load_state_dict(weights, assign=True)
        return network.eval().requires_grad_(False)


class _PCA:
    """The principal components of the validation data."""

    wants = "data"

    def suits(self, dataset: Dataset) -> bool:
        return True

    def name(self, dataset: Dataset) -> str:
        return f"pca-{dataset.slug}"

    def require(self, download: bool) -> None:
        pass

    def make(self, dataset: Dataset, store: Path, download: bool) -> Made:
        name = self.name(dataset)

        def fit() -> dict[str, Tensor]:
            found = PCAFeatures.of(name, unit(torch.from_numpy(dataset.validation)))
            return {"offset": found.offset, "components": found.components}

        return Made(kept(kept_path(store, name, dataset.validation), fit))

    def space(self, name: str, weights: Mapping[str, Tensor], spec: DataSpec) -> FeatureSpace:
        return PCAFeatures(name, **weights)


class _Inception:
    """The features of the FID, whatever the data."""

    wants = "images of 1 or 3 channels"

    def suits(self, dataset: Dataset) -> bool:
        return len(dataset.spec.shape) == 3 and dataset.spec.shape[0] in (1, 3)

    def name(self, dataset: Dataset) -> str:
        return "inception"

    def require(self, download: bool) -> None:
        require_weights(download)

    def make(self, dataset: Dataset, store: Path, download: bool) -> Made:
        return Made(load_weights(download))

    def space(self, name: str, weights: Mapping[str, Tensor], spec: DataSpec) -> FeatureSpace:
        device = next(iter(weights.values())).device
        return Inception(name, weights).to(device)


KINDS: dict[str, Kind] = {"lenet": _LeNet(), "pca": _PCA(), "inception": _Inception()}
"""By name; auto is the first one that suits."""


def resolve(features: str, dataset: Dataset) -> str:
    """The kind that `features` means for a data set.

    Raises `InputError` where there is no such kind, or it is not for this data set.
    """
    suiting = [name for name, kind in KINDS.items() if kind.suits(dataset)]
    kind = KINDS.get(features)
    why = f", for {dataset.name} holds no {kind.wants}" if kind else ""
    expected = f"one of {', '.join(['auto', *suiting])}{why}"
    require(features in ("auto", *suiting), "features", features, expected)
    return suiting[0] if features == "auto" else features


def space_name(dataset: Dataset, features: str = "auto") -> str:
    """The name of a data set's feature space. Raises `InputError` as `resolve` does."""
    return KINDS[resolve(features, dataset)].name(dataset)


def require_features(dataset: Dataset, features: str, download: bool) -> None:
    """Raise `InputError` unless the data set can be compared in `features`, now."""
    KINDS[resolve(features, dataset)].require(download)


def _train(name: str, dataset: Dataset) -> tuple[dict[str, Tensor], float]:
    """Weights and accuracy. By one thread: the same however many cores there are, and small
    images' steps are no faster by several."""
    prepare_thread()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _trained(name, dataset)
    finally:
        torch.set_num_threads(threads)


def _trained(name: str, dataset: Dataset) -> tuple[dict[str, Tensor], float]:
    assert dataset.train_labels is not None and dataset.test_labels is not None
    images, labels = torch.from_numpy(dataset.train), torch.from_numpy(dataset.train_labels)
    network = train_lenet(name, images, labels, dataset.num_classes)
    test, classes = torch.from_numpy(dataset.test), torch.from_numpy(dataset.test_labels)
    return network.state_dict(), accuracy(network, test, classes)
