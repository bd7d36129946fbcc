"""Who tells the modes of a data set's samples apart: the mixture that its points are of, or the
classifier of its labelled images. The feature space that samples are compared in has no say.
"""

from __future__ import annotations

from pathlib import Path

import torch

from gen_models.metrics import ModeClassifier
from gen_models.metrics.lenet import ClassModes, LeNet
from gen_models.metrics.mixtures import MIXTURES
from pipelines.data import Dataset
from pipelines.evaluation.feature_extractor import extractor
from pipelines.evaluation.feature_spaces import KINDS


def telling_modes(dataset: Dataset, store: Path) -> ModeClassifier | None:
    """None where nobody can: of images without labels, and of other points."""
    if dataset.name in MIXTURES:
        return MIXTURES[dataset.name]()
    return _classes(dataset, store) if KINDS["lenet"].suits(dataset) else None


def _classes(dataset: Dataset, store: Path) -> ClassModes:
    """The classes, as frequent as in the test images."""
    assert dataset.test_labels is not None
    found = extractor(dataset, store, "lenet")
    network = found.space(torch.from_numpy(dataset.test[:1]), dataset.num_classes)
    assert isinstance(network, LeNet)
    labels = torch.from_numpy(dataset.test_labels)
    return ClassModes(network, torch.bincount(labels, minlength=dataset.num_classes))
