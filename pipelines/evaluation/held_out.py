"""Evaluates a model on the test split, in one process or on several workers that share the work.

Metrics of a part of the test images take the first ones in an order that follows from a fixed seed
(`pipelines.data.stratification`): a data set's own order may go by class.

Names of metrics hold what they depend on: `test/fd/lenet-mnist/10k` is a Fréchet distance in the
features of MNIST's classifier, of 10,000 samples, to the test images.

A further metric is one function and one line of `HELD_OUT_METRICS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gen_models.core.checkpoint import Checkpoint
from gen_models.core.contract import BoundsLikelihood, Model, Reconstructs, is_conditional
from gen_models.core.data import Batch, blocks, floats, unit
from gen_models.core.errors import require
from gen_models.core.sampling import sample
from gen_models.metrics import (
    Likelihood,
    ModeClassifier,
    Modes,
    Moments,
    Neighbours,
    estimate_prdc,
    frechet_distance,
    kernel_distance,
    likelihood_sums,
)
from gen_models.metrics.lenet import ClassModes, LeNet
from gen_models.metrics.mixtures import MIXTURES
from gen_models.training.distributed import gather, rank_and_world, sum_over_workers
from pipelines.config.evaluation import K_NEAREST, HeldOutConfig
from pipelines.data import Dataset
from pipelines.data.batches import as_batch
from pipelines.data.dataset import Part
from pipelines.data.stratification import reordered, stratified_order
from pipelines.evaluation.feature_spaces import (
    FACTORIES,
    Extractor,
    features_of_test,
    make_extractor,
)
from pipelines.evaluation.images import drawing
from pipelines.evaluation.metric_names import bound_of, mean_over, standard_error, where
from pipelines.evaluation.progress import ProgressLog
from pipelines.store.files import LOCAL, Files
from pipelines.store.layout import Store

_RESULTS = "results.json"
_BLOCK = 500  # images of which features, reconstructions or distances are computed at once
_SEED = 1  # not that of validation


@dataclass(frozen=True, eq=False)
class HeldOutTask:
    """A model and the data to evaluate it on. Arrays are of the CPU, so that it can be sent to
    workers."""

    config: HeldOutConfig
    checkpoint: Checkpoint
    test: Part
    """In an order of which the first images, however many, are a fair sample."""
    train: Part
    """Where the images nearest to samples are looked for."""
    num_classes: int
    extractor: Extractor
    """The feature space in which samples are compared with test images."""
    test_features: np.ndarray[Any, Any]
    """Features of the test images, (N, dim), in the same order."""
    mode_classifier: ModeClassifier | None
    """Assigns samples to the modes of the data; None if nothing can."""


def make_task(
    config: HeldOutConfig,
    checkpoint: Checkpoint,
    dataset: Dataset,
    store: Store,
    features: str = "auto",
    download: bool = False,
) -> HeldOutTask:
    """Return the task of evaluating a checkpoint on a data set's test split.

    Fits the feature space `features` and a classifier of modes, unless the store's cache has
    them. Raises `InputError` if the data set cannot be compared in `features`, or has fewer test
    images than a metric needs.
    """
    _require_images(dataset)
    order = stratified_order(len(dataset.test), dataset.test_labels, _SEED)
    extractor = make_extractor(dataset, store, features, download)
    return HeldOutTask(
        config,
        checkpoint,
        reordered(dataset.part("test"), order),
        dataset.part("train"),
        dataset.num_classes,
        extractor,
        features_of_test(extractor, dataset, store)[order],
        make_mode_classifier(dataset, store),
    )


def make_mode_classifier(dataset: Dataset, store: Store) -> ModeClassifier | None:
    """Return what assigns samples to the modes of a data set, whichever feature space samples are
    compared in: the mixture that points are drawn from, or the classifier of labelled images,
    with classes as frequent as among the test images. None for other data."""
    if dataset.name in MIXTURES:
        return MIXTURES[dataset.name]()
    if not FACTORIES["lenet"].suits(dataset):
        return None
    assert dataset.test_labels is not None
    extractor = make_extractor(dataset, store, "lenet")
    network = extractor.space(torch.from_numpy(dataset.test[:1]), dataset.num_classes)
    assert isinstance(network, LeNet)
    images, labels = torch.from_numpy(dataset.test), torch.from_numpy(dataset.test_labels)
    return ClassModes.of(network, images, labels)


def _require_images(dataset: Dataset) -> None:
    """Raise `InputError` if a metric needs more test images than there are."""
    for metric in HELD_OUT_METRICS:
        expected = f"a data set of at least {metric.min_images} test images, for {metric.title}"
        found = f"{dataset.name} with {len(dataset.test)}"
        require(len(dataset.test) >= metric.min_images, "data", found, expected)


@dataclass(frozen=True)
class HeldOutResults:
    """The results of an evaluation on the test split."""

    metrics: Mapping[str, float]
    """By name, `test/…`; finite numbers alone."""
    tags: Mapping[str, str]
    pictures: Mapping[str, bytes]
    """PNG files by name."""

    def write(self, folder: Path, files: Files = LOCAL) -> None:
        """Write the results to `folder`, from which `read` reads them. The JSON file comes last,
        so that where it is, the pictures are."""
        for name, png in self.pictures.items():
            files.write(folder / f"{name}.png", png)
        content = {
            "metrics": dict(self.metrics),
            "tags": dict(self.tags),
            "pictures": list(self.pictures),
        }
        files.write(folder / _RESULTS, json.dumps(content))

    @classmethod
    def read(cls, folder: Path, files: Files = LOCAL) -> HeldOutResults:
        """Return the results in `folder`. Raises `FileNotFoundError` if there are none."""
        content = json.loads(files.read(folder / _RESULTS))
        pictures = {name: files.read(folder / f"{name}.png") for name in content["pictures"]}
        return cls(content["metrics"], content["tags"], pictures)


@dataclass(frozen=True, eq=False)
class HeldOutContext:
    """What metrics are computed from: the model and its samples, on a device. What several
    metrics need is computed once, when it is first asked for; on several workers, each must ask
    for the same in the same order."""

    task: HeldOutTask
    networks: Mapping[str, nn.Module]
    test: Batch
    samples: Tensor
    """(config.num, *shape) in [0, 1]; of the classes `test.labels` in turn, if the model is
    class-conditional."""

    @property
    def model(self) -> Model:
        return self.task.checkpoint.model

    @cached_property
    def test_features(self) -> Tensor:
        """Features of the test images, (N, dim)."""
        return torch.from_numpy(self.task.test_features).to(self.samples.device)

    @cached_property
    def sample_features(self) -> Tensor:
        """Features of the samples, (config.num, dim), each block computed by one worker."""
        space = self.task.extractor.space(self.samples, self.task.num_classes)
        parts = torch.split(self.samples, _BLOCK)
        world = rank_and_world()[1]
        progress = ProgressLog(f"features in {space.name} of samples", len(self.samples) // world)

        def compute(index: int) -> Tensor:
            features = space(parts[index])
            progress.advance(len(features))
            return features

        return torch.cat(gather(len(parts), compute, self.samples.device))

    @property
    def mode_classifier(self) -> ModeClassifier:
        assert self.task.mode_classifier is not None
        return self.task.mode_classifier

    @cached_property
    def modes(self) -> Modes:
        """The modes of the samples."""
        return self.mode_classifier.modes(self.samples.cpu())


@dataclass(frozen=True)
class HeldOutMetric:
    """One or several metrics of a model on the test split."""

    applies: Callable[[Model, HeldOutTask], bool]
    """Returns whether the model and the data have the metric; the same on every worker."""
    compute: Callable[[HeldOutContext], dict[str, float]]
    """Returns values by name, `test/…`. On several workers every one calls it and gets the same
    values."""
    min_images: int = 1
    """The fewest test images of which it can be computed."""
    title: str = ""
    """What it is, in the message that there are fewer."""


def _distances(context: HeldOutContext) -> dict[str, float]:
    """Compute the Fréchet and the kernel distance between samples and test images."""
    test, samples = context.test_features, context.sample_features
    kernel = kernel_distance(test, samples)
    values = {
        "fd": frechet_distance(Moments.of(test), Moments.of(samples)),
        "kd": kernel.value,
        standard_error("kd"): kernel.standard_error,
    }
    end = where(context.task.extractor.name, len(samples))
    return {f"test/{name}/{end}": float(value) for name, value in values.items()}


def _precision_and_recall(context: HeldOutContext) -> dict[str, float]:
    """Compute precision, recall, density and coverage (Naeem et al. 2020) with their standard
    errors, of as many samples as test images: with more of either, the balls around them are
    smaller."""
    test, samples = context.test_features, context.sample_features
    num = min(len(test), len(samples))
    found, errors = estimate_prdc(Neighbours.of(test[:num], K_NEAREST), samples[:num])
    values = asdict(found)
    values |= {standard_error(name): value for name, value in asdict(errors).items()}
    end = where(context.task.extractor.name, num)
    return {f"test/{name}/{end}": float(value) for name, value in values.items()}


def _mode_coverage(context: HeldOutContext) -> dict[str, float]:
    """Compute the number of modes among the samples, how evenly they are covered, the share of
    samples that are of a mode (Srivastava et al. 2017), and what tells a collapse: modes that are
    lost, and how little samples of a mode differ."""
    modes = context.modes
    end = where(context.mode_classifier.name, len(context.samples))
    return {
        f"test/modes/{end}": float(modes.found),
        f"test/reverse_kl/{end}": modes.reverse_kl,
        f"test/mode_share/{end}": modes.share,
        f"test/lost_modes/{end}": float(modes.lost),
        f"test/lost_share/{end}": modes.lost_share,
        f"test/mode_spread/{end}": modes.spread,
    }


def _label_accuracy(context: HeldOutContext) -> dict[str, float]:
    """Compute the share of samples that the classifier assigns to the class asked for."""
    num, labels = len(context.samples), context.test.labels
    asked = labels[torch.arange(num, device=labels.device) % len(labels)]
    correct = context.mode_classifier.assign(context.samples.cpu()) == asked.cpu()
    end = where(context.mode_classifier.name, num)
    return {f"test/label_accuracy/{end}": float(correct.double().mean())}


def _squared_error(context: HeldOutContext) -> dict[str, float]:
    """Compute half the squared error of reconstructions, summed over an image, averaged over all
    test images. Workers take blocks in turn."""
    model, test = context.model, context.test
    assert isinstance(model, Reconstructs)
    rank, world = rank_and_world()
    total = torch.zeros((), dtype=torch.float64, device=test.images.device)
    for block in map(floats, blocks(test, _BLOCK)[rank::world]):
        error = model.reconstruct(context.networks, block) - block.images
        total += 0.5 * error.double().square().sum()
    return {"test/squared_error": float(sum_over_workers(total)) / test.num}


def _likelihood(context: HeldOutContext) -> dict[str, float]:
    """Compute the importance-weighted bound on the likelihood of test images (Burda et al. 2016)
    and its parts, in nats, with their standard errors. Workers take blocks in turn."""
    config, model = context.task.config, context.model
    rank, world = rank_and_world()
    sums = likelihood_sums(
        model,
        context.networks,
        context.test.rows(slice(config.images)),
        num_samples=config.importance_samples,
        seed=_SEED,
        rank=rank,
        world=world,
    )
    for total in sums.tensors():
        sum_over_workers(total)
    likelihood = Likelihood.of(sums, model, config.importance_samples)
    num, errors = likelihood.num_images, likelihood.standard_errors
    bound, mean = (end(config.importance_samples, num) for end in (bound_of, mean_over))
    values: dict[str, float] = {}
    for names, end in ((("nll", "bits_per_dim"), bound), (("elbo", "kl", "reconstruction"), mean)):
        values |= {f"test/{name}/{end}": getattr(likelihood, name) for name in names}
        values |= {f"test/{standard_error(name)}/{end}": errors[name] for name in names}
    if likelihood.active_units is not None:
        values[f"test/active_units/{num}"] = float(likelihood.active_units)
    return values


def _has_modes(model: Model, task: HeldOutTask) -> bool:
    return task.mode_classifier is not None


HELD_OUT_METRICS: tuple[HeldOutMetric, ...] = (
    HeldOutMetric(lambda model, task: True, _distances, 3, "the kernel distance"),
    HeldOutMetric(
        lambda model, task: True,
        _precision_and_recall,
        K_NEAREST + 1,
        f"precision and recall by {K_NEAREST} nearest neighbours",
    ),
    HeldOutMetric(_has_modes, _mode_coverage),
    HeldOutMetric(lambda m, task: _has_modes(m, task) and is_conditional(m), _label_accuracy),
    HeldOutMetric(lambda model, task: isinstance(model, Reconstructs), _squared_error),
    HeldOutMetric(lambda model, task: isinstance(model, BoundsLikelihood), _likelihood),
)
"""Computed in this order."""


@torch.no_grad()
def evaluate_held_out(task: HeldOutTask, device: torch.device) -> HeldOutResults:
    """Evaluate a model on a device. On several workers, every one must call it, and all return
    the same results."""
    model = task.checkpoint.model
    networks = {name: network.to(device) for name, network in task.checkpoint.networks.items()}
    test = as_batch(task.test, device)
    samples = sample(model, networks, task.config.num, _SEED, device, test.labels, gather=gather)
    context = HeldOutContext(task, networks, test, samples)
    metrics: dict[str, float] = {}
    for metric in HELD_OUT_METRICS:
        if metric.applies(model, task):
            metrics |= metric.compute(context)
    tags = {"test/images": str(test.num)}
    if task.mode_classifier:
        modes = context.modes
        tags["collapsed"] = f"{modes.collapsed}: of {len(samples)} samples {modes}"
    finite = {name: value for name, value in metrics.items() if isfinite(value)}
    pictures = {"nearest": _nearest_png(samples, torch.from_numpy(task.train.images))}
    return HeldOutResults(finite, tags, pictures)


def _nearest_png(samples: Tensor, train: Tensor) -> bytes:
    """Return a picture of the first samples, each beside the training image that is nearest to it
    in Euclidean distance of values: equal pairs show that training images were memorised."""
    draw = drawing(samples.shape[1:])
    shown = samples[: draw.num_pairs].cpu()
    flat = shown.flatten(1)
    nearest_distance = torch.full((len(shown),), torch.inf)
    nearest = torch.zeros(len(shown), dtype=torch.int64)
    for start in range(0, len(train), _BLOCK):
        block = unit(train[start : start + _BLOCK]).flatten(1)
        distance, index = torch.cdist(flat, block).min(1)
        nearer = distance < nearest_distance
        nearest_distance = torch.where(nearer, distance, nearest_distance)
        nearest = torch.where(nearer, index + start, nearest)
    return draw.pairs(shown, unit(train[nearest]))
