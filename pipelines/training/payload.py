"""What the processes of a run, or of a search's trials, are sent.

Ray's processes import this module, so it imports little, and the config travels as plain values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ray

from pipelines.store.marker import StoreMarker

if TYPE_CHECKING:
    from pipelines.data.dataset import Dataset, Part
    from pipelines.evaluation.feature_spaces import Extractor


@dataclass(frozen=True)
class SharedDataset:
    """The part of a data set that training needs. It travels through Ray's object store, once per
    node."""

    train: Part
    """Images uint8 (N, C, H, W), or float32 (N, *shape) in [0, 1]; labels if there are any."""
    validation: Part
    num_classes: int
    extractor: Extractor
    """Builds the feature space in which samples are compared."""


DatasetRef = tuple["ray.ObjectRef[SharedDataset]"]
"""One reference, in a tuple because Ray would replace a bare one by the object."""


@dataclass(frozen=True)
class TrainingPayload:
    """What the processes of one run, or of every trial of a search, are sent."""

    config: Mapping[str, Any]
    """The config, from `pipelines.config.serialization.to_dict`."""
    folder: str
    """The folder of the run or the search, which every node sees."""
    dataset: DatasetRef
    on_gpu: bool
    marker: StoreMarker
    """By which a process tells whether it sees the store, before it writes."""
    widest: Mapping[str, int] = field(default_factory=dict)
    """Of the trials of a search: the largest value that it gives to each width of the model that
    it searches (`pipelines.tuning.strategy.space.widest_settings`)."""


def share_dataset(dataset: Dataset, extractor: Extractor) -> DatasetRef:
    """Put a data set into Ray's object store; the workers of a node read the same memory."""
    train, validation = dataset.part("train"), dataset.part("validation")
    return (ray.put(SharedDataset(train, validation, dataset.num_classes, extractor)),)
