"""Small runs on some of the digits, and what trains them in this process."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from gen_models.training.batches import TrainingImages
from pipelines.config.run import R, defaults
from pipelines.config.serialization import with_settings
from pipelines.data import load
from pipelines.data.dataset import Dataset, Part
from pipelines.evaluation.feature_spaces import make_extractor
from pipelines.evaluation.validation import Evaluator
from pipelines.store.layout import Store
from pipelines.training.loop import make_data
from pipelines.training.payload import SharedDataset

CPU = torch.device("cpu")


def small_run(kind: type[R], family: str = "vae", **settings: Any) -> R:
    """Return a config of a small model; `settings` have the config's shape."""
    small = {
        "batch_size": 32,
        "epochs": 3,
        "precision": "fp32",
        "compile": "off",
        "features": "pca",
        "metric": {"vae": "val/nll/iw8", "gan": "val/fd/pca-digits/2k"}.get(
            family, "val/squared_error"
        ),
        "model": {"arch": "mlp", "hidden": (8,), "latent_dim": 2},
    }
    return with_settings(with_settings(defaults(kind, family), small), settings)


@cache
def _digits() -> Dataset:
    return load("digits", Path())


def small_dataset(store: Path) -> SharedDataset:
    """Return 96 training and 32 validation digits, compared by their principal components."""
    digits = _digits()
    parts = [
        Part(part.images[:num], None if part.labels is None else part.labels[:num])
        for part, num in ((digits.part("train"), 96), (digits.part("validation"), 32))
    ]
    extractor = make_extractor(digits, Store.at(store), "pca")
    return SharedDataset(*parts, digits.num_classes, extractor)


@dataclass(frozen=True)
class SmallData:
    """The data of a run and its evaluator, on the CPU."""

    images: TrainingImages
    evaluator: Evaluator
    num_classes: int


def small_data(run: Any, store: Path) -> SmallData:
    """Return what `small_dataset` gives a run to train on."""
    dataset = small_dataset(store)
    return SmallData(*make_data(run, dataset, CPU), dataset.num_classes)
