"""What the test split says of a model: by one process, or by several workers that share the work.

Every name says what was measured on: `test/fd/lenet-mnist/10k` is a Fréchet distance in the
features of MNIST's classifier, of 10,000 samples, to the test images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gen_models.core.checkpoint import Checkpoint
from gen_models.core.contract import BoundsLikelihood, Networks, Reconstructs, is_conditional
from gen_models.core.data import Batch, blocks, floats, unit
from gen_models.core.sampling import sample
from gen_models.metrics import (
    FeatureSpace,
    Likelihood,
    ModeClassifier,
    Modes,
    Moments,
    Neighbours,
    compute_prdc,
    frechet_distance,
    kernel_distance,
    likelihood_sums,
)
from gen_models.training.distributed import gather, rank_and_world, sum_over_workers
from pipelines.config.requests import Evaluate
from pipelines.data.dataset import Part
from pipelines.evaluation.feature_extractor import Extractor
from pipelines.evaluation.images import drawing
from pipelines.store.journal import write_whole
from pipelines.training.loop import as_batch

NEIGHBOURS = 5
"""Of precision, recall, density and coverage."""
_FILE = "findings.json"
_SHOWN = 32
_BLOCK = 500
_SEED = 1  # not validation's


@dataclass(frozen=True)
class Subject:
    """A model, and what it is measured on."""

    asked: Evaluate
    checkpoint: Checkpoint
    test: Part
    train: Part
    num_classes: int
    extractor: Extractor
    real: np.ndarray[Any, Any]
    """Features of the test images, (N, dim)."""
    mode_classifier: ModeClassifier | None


@dataclass(frozen=True)
class Findings:
    """What was found."""

    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    pictures: Mapping[str, bytes]
    """PNG files by name."""

    def write(self, folder: Path) -> None:
        """Leave it in a folder, for the process that asked."""
        for name, png in self.pictures.items():
            write_whole(folder / f"{name}.png", png)
        content = {"metrics": self.metrics, "tags": self.tags, "pictures": list(self.pictures)}
        write_whole(folder / _FILE, json.dumps(content))

    @classmethod
    def read(cls, folder: Path) -> Findings:
        """What `write` left."""
        content = json.loads((folder / _FILE).read_text())
        pictures = {name: (folder / f"{name}.png").read_bytes() for name in content["pictures"]}
        return cls(content["metrics"], content["tags"], pictures)


@torch.no_grad()
def measured(subject: Subject, device: torch.device) -> Findings:
    """Measure on a device. Where there are several workers each must call, and finds the same."""
    asked, model = subject.asked, subject.checkpoint.model
    networks = {name: network.to(device) for name, network in subject.checkpoint.networks.items()}
    test = as_batch(subject.test, device)
    samples = sample(model, networks, asked.num, _SEED, device, test.labels, shared=True)
    metrics = _compared(subject, samples)
    tags = {"test/images": str(test.num)}
    if subject.mode_classifier:
        modes = subject.mode_classifier.modes(samples.cpu())
        metrics |= _modes(subject.mode_classifier.name, modes, len(samples))
        tags["collapsed"] = str(modes.collapsed)
        if is_conditional(model):
            metrics |= _of_their_class(subject.mode_classifier, samples, test.labels)
    if isinstance(model, Reconstructs):
        metrics["test/squared_error"] = _squared_error(model, networks, test)
    if isinstance(model, BoundsLikelihood):
        metrics |= _likelihood(subject, networks, test.rows(slice(asked.images)))
    finite = {name: value for name, value in metrics.items() if isfinite(value)}
    nearest = _nearest(samples[:_SHOWN].cpu(), torch.from_numpy(subject.train.images))
    return Findings(finite, tags, {"nearest": nearest})


def _compared(subject: Subject, samples: Tensor) -> dict[str, float]:
    """Samples and test images, in a feature space."""
    space = subject.extractor.space(samples, subject.num_classes)
    real = torch.from_numpy(subject.real).to(samples.device)
    generated = _features(space, samples)
    name = subject.extractor.name
    return _distances(name, real, generated) | _neighbourhoods(name, real, generated)


def _features(space: FeatureSpace, samples: Tensor) -> Tensor:
    """(N, *shape) -> (N, dim), each block by one worker."""
    blocks = torch.split(samples, _BLOCK)
    return torch.cat(gather(len(blocks), lambda index: space(blocks[index]), samples.device))


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
    neighbours = Neighbours.of(real[:num], min(NEIGHBOURS, num - 1))
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


def _of_their_class(
    mode_classifier: ModeClassifier, samples: Tensor, labels: Tensor
) -> dict[str, float]:
    """The part of the samples that are taken for what was asked for, which are `labels` in
    turn."""
    asked = labels[torch.arange(len(samples), device=labels.device) % len(labels)]
    right = mode_classifier.assign(samples.cpu()) == asked.cpu()
    where = _where(mode_classifier.name, len(samples))
    return {f"test/label_accuracy/{where}": float(right.double().mean())}


def _squared_error(model: Reconstructs, networks: Networks, test: Batch) -> float:
    """Half the squared error of reconstructions, summed over an image. Workers share blocks."""
    rank, world = rank_and_world()
    total = torch.zeros((), dtype=torch.float64, device=test.images.device)
    for block in map(floats, blocks(test, _BLOCK)[rank::world]):
        error = model.reconstruct(networks, block) - block.images
        total += 0.5 * error.double().square().sum()
    return float(sum_over_workers(total)) / test.num


def _likelihood(
    subject: Subject, networks: Mapping[str, nn.Module], test: Batch
) -> dict[str, float]:
    """The importance-weighted bound and what goes with it, each block of images by one worker."""
    num, model = subject.asked.importance_samples, subject.checkpoint.model
    rank, world = rank_and_world()
    sums = likelihood_sums(
        model, networks, test, num_samples=num, seed=_SEED, rank=rank, world=world
    )
    for total in sums.tensors():
        sum_over_workers(total)
    found = Likelihood.of(sums, model, num)
    own: Mapping[str, float | None] = {
        f"nll/iw{num}": found.nll,
        f"bits_per_dim/iw{num}": found.bits_per_dim,
        "elbo": found.elbo,
        "kl": found.kl,
        "reconstruction": found.reconstruction,
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
