"""What the test split says of a recorded model, once it was chosen: the numbers to report.

Every name says what was measured on: `test/fd/lenet-mnist/10k` is a Fréchet distance in the
features of MNIST's classifier, of 10,000 samples, to the test images.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gen_models.core.batches import unit
from gen_models.core.checkpoint import Checkpoint, load_checkpoint
from gen_models.core.contract import Batch, BoundsLikelihood
from gen_models.core.errors import require
from gen_models.core.sampling import sample
from gen_models.metrics import (
    Modes,
    Moments,
    Neighbours,
    compute_prdc,
    estimate_likelihood,
    frechet_distance,
    kernel_distance,
)
from pipelines.data import Dataset
from pipelines.epoch import as_batch
from pipelines.features import Extractor, extractor, features_of_test, show_features
from pipelines.modes import telling_modes
from pipelines.pictures import drawing
from pipelines.preflight import load_data, require_same_data
from pipelines.progress import say
from pipelines.recorded import recorded_at
from pipelines.requests import Evaluate
from pipelines.rerun import config_of
from pipelines.tracking import record_evaluation, resolve_checkpoint, resolve_run

_BIASED_BELOW = 2048
_NEIGHBOURS = 5
_SHOWN = 32
_BLOCK = 1000
_SEED = 1  # not validation's


def assess(asked: Evaluate) -> dict[str, Any]:
    """Measure a recorded model on the test split, and tell its MLflow run.

    Raises `InputError` where there is no such run, or its data set has changed.
    """
    require(asked.num > _NEIGHBOURS, "num", asked.num, f"at least {_NEIGHBOURS + 1}")
    for name in ("importance_samples", "images"):
        require(getattr(asked, name) >= 1, name, getattr(asked, name), "an integer of at least 1")
    uri = recorded_at(asked.store, asked.tracking_uri)
    row = resolve_run(uri, asked.model)
    kept = f"a run or a trial, and not a {row.kind or 'run of another program'}"
    require(row.kind in ("run", "trial"), "model", asked.model, kept)
    config = config_of(row.tags["rerun"])
    config = replace(
        config,
        data_root=asked.data_root or config.data_root,
        features=asked.features or config.features,
        download=asked.download,
    )
    dataset = load_data(config)
    require_same_data(config, dataset, row.tags["data_digest"], row.name)
    with tempfile.TemporaryDirectory() as fetched:
        checkpoint = load_checkpoint(resolve_checkpoint(uri, asked.model, Path(fetched)))
    found = extractor(dataset, asked.store.absolute(), config.features, config.download)
    metrics, tags, pictures = _measured(asked, checkpoint, dataset, found)
    record_evaluation(uri, row.run_id, metrics, tags, pictures)
    return {"run_id": row.run_id, "name": row.name, "metrics": metrics, "tags": tags}


def _measured(
    asked: Evaluate, checkpoint: Checkpoint, dataset: Dataset, found: Extractor
) -> tuple[dict[str, float], dict[str, str], dict[str, bytes]]:
    """Metrics and tags by name, and PNG files."""
    store = asked.store.absolute()
    test, train = as_batch(dataset.part("test")), torch.from_numpy(dataset.train)
    if asked.num < _BIASED_BELOW:
        say(
            f"num = {asked.num}: below {_BIASED_BELOW} samples the Fréchet distance is too large, "
            "by an amount that shrinks as one over their number: compare equal numbers alone"
        )
    samples = sample(checkpoint.model, checkpoint.networks, asked.num, _SEED, labels=test.labels)
    metrics = _compared(found, dataset, store, samples)
    tags = {"test/images": str(test.num)}
    if telling := telling_modes(dataset, store):
        modes = telling.modes(samples)
        metrics |= _modes(telling.name, modes, len(samples))
        tags["collapsed"] = str(modes.collapsed)
    if isinstance(checkpoint.model, BoundsLikelihood):
        metrics |= _likelihood(asked, checkpoint, test.rows(slice(asked.images)))
    finite = {name: value for name, value in metrics.items() if isfinite(value)}
    return finite, tags, {"nearest": _nearest(samples[:_SHOWN], train)}


def _compared(
    found: Extractor, dataset: Dataset, store: Path, samples: Tensor
) -> dict[str, float]:
    """Samples and test images, in a feature space."""
    space = found.space(samples, dataset.num_classes)
    real = features_of_test(found, space, dataset, store)
    generated = torch.cat([*show_features(space, samples)])
    return _distances(found.name, real, generated) | _neighbourhoods(found.name, real, generated)


def _where(space: str, num: int) -> str:
    """Of a metric's name: in which features, and of how many samples."""
    return f"{space}/{num // 1000}k" if num >= 1000 else f"{space}/{num}"


def _distances(space: str, real: Tensor, generated: Tensor) -> dict[str, float]:
    """Fréchet and kernel distance between features."""
    kernel = kernel_distance(real, generated)
    found = {
        "fd": frechet_distance(Moments.of(real), Moments.of(generated)),
        "kd": kernel.value,
        "kd_standard_error": kernel.standard_error,
    }
    where = _where(space, len(generated))
    return {f"test/{name}/{where}": float(value) for name, value in found.items()}


def _neighbourhoods(space: str, real: Tensor, generated: Tensor) -> dict[str, float]:
    """Precision, recall, density, coverage: of as many samples as test images, for the more there
    are of either, the smaller the balls around them."""
    num = min(len(real), len(generated))
    neighbours = Neighbours.of(real[:num], min(_NEIGHBOURS, num - 1))
    found = asdict(compute_prdc(neighbours, generated[:num]))
    where = _where(space, num)
    return {f"test/{name}/{where}": float(value) for name, value in found.items()}


def _modes(name: str, modes: Modes, num: int) -> dict[str, float]:
    """Modes found, how evenly, and the part of the samples that is of one."""
    where = _where(name, num)
    return {
        f"test/modes/{where}": float(modes.found),
        f"test/reverse_kl/{where}": modes.reverse_kl,
        f"test/mode_share/{where}": modes.share,
    }


def _likelihood(asked: Evaluate, checkpoint: Checkpoint, test: Batch) -> dict[str, float]:
    num = asked.importance_samples
    found = estimate_likelihood(
        checkpoint.model, checkpoint.networks, test, num_samples=num, seed=_SEED
    )
    own: Mapping[str, float | None] = {
        f"nll/iw{num}": found.nll,
        f"bits_per_dim/iw{num}": found.bits_per_dim,
        "elbo": found.elbo,
        "kl": found.kl,
        "reconstruction": found.reconstruction,
        "squared_error": found.squared_error,
        "active_units": found.active_units,
        "likelihood_images": found.num_images,
    }
    return {f"test/{name}": float(value) for name, value in own.items() if value is not None}


def _nearest(samples: Tensor, train: Tensor) -> bytes:
    """A picture of samples, and below each the training image nearest to it (in values): a model
    that has learnt by heart shows pairs."""
    flat = samples.flatten(1)
    best = torch.full((len(samples),), torch.inf)
    index = torch.zeros(len(samples), dtype=torch.int64)
    for start in range(0, len(train), _BLOCK):
        block = unit(train[start : start + _BLOCK]).flatten(1)
        distance, found = torch.cdist(flat, block).min(1)
        nearer = distance < best
        best, index = (
            torch.where(nearer, distance, best),
            torch.where(nearer, found + start, index),
        )
    return drawing(samples.shape[1:]).pairs(samples, unit(train[index]))
