"""The feature space of a data set: of labelled images their classifier, trained once for a store
and kept there; of others the principal components of the validation images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from gen_models.core.batches import unit
from gen_models.core.contract import DataSpec
from gen_models.metrics.features import FeatureSpace, PCAFeatures
from gen_models.metrics.lenet import LeNet, accuracy, train_lenet
from pipelines.cpu import prepare_thread
from pipelines.data import Dataset
from pipelines.journal import write_whole
from pipelines.progress import say


@dataclass(frozen=True)
class Extractor:
    """What another process needs to make a feature space."""

    name: str
    weights: Mapping[str, np.ndarray[Any, Any]] | None
    """Of the classifier; None where the space is that of principal components."""
    accuracy: float | None
    """Of the classifier, on the test images."""

    @property
    def summary(self) -> dict[str, float]:
        """What a run that uses it is told of it."""
        return {} if self.accuracy is None else {"features/accuracy": self.accuracy}

    def space(self, validation: Tensor, num_classes: int) -> FeatureSpace:
        """The space, on the device of the validation images, uint8 (N, C, H, W)."""
        if self.weights is None:
            return PCAFeatures.of(self.name, unit(validation))
        network = LeNet(self.name, DataSpec(tuple(validation.shape[1:]), num_classes))
        network.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in self.weights.items()})
        return network.to(validation.device).eval().requires_grad_(False)


def space_name(dataset: Dataset) -> str:
    """The name of a data set's feature space."""
    return f"{'lenet' if _is_labelled(dataset) else 'pca'}-{dataset.slug}"


def _is_labelled(dataset: Dataset) -> bool:
    """Whether there are classes of images to be told apart."""
    return dataset.num_classes > 1 and len(dataset.spec.shape) == 3


def extractor(dataset: Dataset, store: Path) -> Extractor:
    """The data set's, from the store if it is there; trained now, and kept, if it is not."""
    name = space_name(dataset)
    if not _is_labelled(dataset):
        return Extractor(name, None, None)
    path = store / "features" / f"{name}-{dataset.digest[:12]}.safetensors"
    if not path.is_file():
        say(f"training {name}, the classifier whose features samples are compared in, once")
        weights, right = _train(name, dataset)
        write_whole(path.with_suffix(".json"), json.dumps({"accuracy": right}) + "\n")
        write_whole(path, save_tensors(weights))  # it commits
        say(f"{name}: {right:.2%} of the test images told apart")
    weights = load_tensors(path.read_bytes())
    known = json.loads(path.with_suffix(".json").read_text())
    return Extractor(name, {k: v.numpy() for k, v in weights.items()}, known["accuracy"])


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
