"""What Ray's processes are told of a run, or of a search.

They import this module, so it imports little, and the config travels as plain values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

if TYPE_CHECKING:
    from pipelines.data import Dataset
    from pipelines.data.dataset import Part
    from pipelines.evaluation.feature_extractor import Extractor


@dataclass(frozen=True)
class Images:
    """What a worker needs of a data set; it travels through Ray's object store, once a node."""

    train: Part
    """Images uint8 (N, C, H, W), or float32 (N, *shape) in [0, 1]; labels, if there are any."""
    validation: Part
    num_classes: int
    extractor: Extractor
    """Makes the feature space in which samples are compared."""


SharedImages = tuple["ray.ObjectRef[Images]"]
"""One reference. In a tuple, or Ray would put the arrays in its place."""


@dataclass(frozen=True)
class Job:
    """What the processes of one run, or of every trial of a search, are told."""

    run: Mapping[str, Any]
    """The config, as `pipelines.config.run.to_dict` gives it."""
    folder: str
    """The run's folder, for the checkpoints and the journal; every node sees it."""
    images: SharedImages
    on_gpu: bool


def share_images(dataset: Dataset, extractor: Extractor) -> SharedImages:
    """Put a data set into Ray's object store; the workers of a node read the same memory."""
    parts = dataset.part("train"), dataset.part("validation")
    content = Images(*parts, dataset.num_classes, extractor)
    return (ray.put(content),)


def trial_folder(search_folder: str | Path, trial_id: str) -> Path:
    """The folder of a trial's run."""
    return Path(search_folder) / "trials" / trial_id
