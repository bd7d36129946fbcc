"""What an epoch of a run yields: its line in the journal, and what Ray is told.

The same whether the run has workers of its own or is a member of a population.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gen_models
from gen_models.core.data import Batch, DataSpec
from gen_models.training.batches import TrainingImages
from gen_models.training.learner import Learner
from gen_models.training.precision import Precision
from pipelines.config.run import Run, Train
from pipelines.data.dataset import Part
from pipelines.evaluation.validation import NUM_CODES, Evaluator
from pipelines.store.journal import Journal
from pipelines.training.payload import Images

WORST = 1e30
"""Stands for a metric that is not finite where Ray wants a number: Tune never stops a NaN."""


def make_learner(run: Train, data: TrainingImages, num_classes: int) -> Learner:
    """A run's learner at its beginning, on the device of the images."""
    assert run.precision != "auto", "resolved by who started the run"
    precision: Precision = run.precision
    spec = DataSpec(tuple(data.examples.images.shape[1:]), num_classes)
    return Learner(
        gen_models.family(run.family).Model(run.model, spec),
        run.optim,
        seed=run.seed,
        steps_per_epoch=data.steps_per_epoch,
        device=data.device,
        precision=precision,
        compiled=run.compile == "on",
        graphs=run.compile != "off",
    )


def make_data(run: Run, images: Images, device: torch.device) -> tuple[TrainingImages, Evaluator]:
    """What a run is trained on, and what it is validated by, on a device."""
    train, validation = (as_batch(part, device) for part in (images.train, images.validation))
    data = TrainingImages(train, run.batch_size, run.drop_last, run.binarise)
    space = images.extractor.space(validation.images, images.num_classes)
    real = images.extractor.moments(device)
    return data, Evaluator(data.seen(NUM_CODES), validation, space, real)


def is_picture_epoch(run: Run, epoch: int) -> bool:
    """Whether samples are drawn at the end of an epoch."""
    return epoch == 1 or epoch % run.picture_every == 0 or epoch == run.epochs


def record(
    folder: str | Path, epoch: int, metrics: Mapping[str, float], pictures: Mapping[str, bytes]
) -> None:
    """Write an epoch into the journal of the run in `folder`."""
    finite = _finite(metrics)
    content = {**finite, "diverged": float(len(finite) < len(metrics))}
    Journal(folder).report(epoch, content, pictures)


def has_diverged(metrics: Mapping[str, float]) -> bool:
    """Whether a metric is not a finite number."""
    return len(_finite(metrics)) < len(metrics)


def told(run: Run, epoch: int, metrics: Mapping[str, float]) -> dict[str, float]:
    """What Ray is told of an epoch: finite numbers alone."""
    diverged = has_diverged(metrics)
    worst = WORST if run.mode == "min" else -WORST
    content = {**_finite(metrics), "epoch": epoch, "diverged": int(diverged)}
    content[run.metric] = worst if diverged else metrics[run.metric]
    return content


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def as_batch(part: Part, device: torch.device | str = "cpu") -> Batch:
    """Images and labels on a device; those of Ray's object store, on a CPU, without a copy."""
    images, labels = (None if array is None else _as_tensor(array).to(device) for array in part)
    assert images is not None
    return Batch.of(images, labels)


def _as_tensor(array: np.ndarray[Any, Any]) -> Tensor:
    with warnings.catch_warnings():
        # The object store's memory is read-only, and nobody writes to images.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
