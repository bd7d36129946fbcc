"""THE epoch loop: train, validate, record, checkpoint, report.

A worker of Ray Train runs it for its one trial, a fused worker for the trials that it trains
together. They differ in how the learners are stepped and where results go (`EpochOutputs`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

import gen_models
from gen_models.core.data import DataSpec
from gen_models.core.digest import weights_digest
from gen_models.training.batches import TrainingImages
from gen_models.training.learner import Learner
from gen_models.training.precision import Precision
from gen_models.training.processor import processor_name
from pipelines.config.run import Run, Train
from pipelines.data.batches import as_batch
from pipelines.evaluation.metric_names import BEST_CURVE
from pipelines.evaluation.validation import NUM_CODES, Evaluator
from pipelines.store.journal import EpochContext, Journal, Schedule
from pipelines.training.payload import SharedDataset

Metrics = dict[str, float]


@dataclass
class TrialState:
    """A run or a trial while it is trained."""

    run: Train
    learner: Learner
    folder: Path
    """Its run folder."""
    epoch: int = 0
    """Epochs that it has run. The learner's position differs if it was copied from another trial
    (population based training)."""
    trial_id: str = ""
    sampled: Mapping[str, Any] = field(default_factory=dict)
    """The searched settings, in the config's shape."""
    costs: dict[int, float] = field(default_factory=dict)
    """The metric that ranks as a number that is small where it is good, by epoch."""
    execution: str = ""
    """How the epoch is trained: `pipelines.store.journal.EpochContext.execution`."""
    widest: Mapping[str, int] = field(default_factory=dict)
    """`pipelines.store.journal.EpochContext.widest`."""
    schedule: Schedule = ()
    """What led to the learner's state, if settings change in training."""

    def best_value(self) -> float | None:
        """Return the best value of the metric that ranks, up to this epoch; None if there is none.
        Later ones are known where a resumed trial trains an epoch again."""
        costs = [cost for epoch, cost in self.costs.items() if epoch <= self.epoch]
        return self.run.objective.value(min(costs)) if costs else None

    def context(self, divergence: str = "") -> EpochContext:
        """Return how the epoch was trained that has just ended, and why it diverged if it did."""
        device = self.learner.device.type
        return EpochContext(
            execution=self.execution,
            widest=self.widest,
            device=device,
            processor=processor_name(device),
            weights=weights_digest(self.learner.state_dict()),
            schedule=self.schedule,
            divergence=divergence,
        )


class EpochOutputs(Protocol):
    """Where the results of an epoch go."""

    writes: bool
    """Whether this process writes the journal: rank 0 alone does."""

    def extra_metrics(self, trial: TrialState) -> Metrics:
        """Return metrics to record beside those of training and validation."""

    def draws_pictures(self, trial: TrialState, metrics: Metrics) -> bool:
        """Return whether to draw pictures at the end of this epoch, which has not diverged."""

    def save(self, trial: TrialState, report: Mapping[str, float], *, diverged: bool) -> None:
        """Save a checkpoint unless the trial diverged, and report to Ray where that is due."""


class EpochLoop:
    """Runs epochs of one or several trials on one device."""

    def __init__(self, data: TrainingImages, evaluator: Evaluator, outputs: EpochOutputs) -> None:
        self.data, self.evaluator, self.outputs = data, evaluator, outputs

    def run(
        self,
        trials: Sequence[TrialState],
        train: Callable[[Sequence[Learner]], None],
        companions: Sequence[Learner] = (),
    ) -> list[dict[str, float]]:
        """Run the next epoch of each trial; return the report of each to Ray.

        `train` steps the learners through one epoch. Several trials must be of one structure.
        `companions`: learners of the same structure, validated beside them
        (`gen_models.fused.trainer.FusedTrainer.companions`).
        """
        learners = [trial.learner for trial in trials]
        start = time.perf_counter()
        train(learners)
        training_metrics = [learner.pop_metrics() for learner in learners]
        # Of the device's time, each of the trials that are trained as one takes an equal share.
        seconds = (time.perf_counter() - start) / len(trials)
        networks = [learner.sampling_networks() for learner in learners]
        validated = [*networks, *(one.sampling_networks() for one in companions)]
        models = [one.model for one in (*learners, *companions)]
        validation_metrics = self.evaluator.metrics(models, validated)
        pace = {
            "epoch_seconds": seconds,
            "images_per_second": self.data.images_per_epoch / seconds,
        }
        reports = []
        for index, trial in enumerate(trials):
            metrics = {f"train/{k}": v for k, v in training_metrics[index].items()}
            metrics |= validation_metrics[index] | pace | self.outputs.extra_metrics(trial)
            reports.append(self._finish(trial, metrics, networks[index]))
        return reports

    def _finish(
        self, trial: TrialState, metrics: Metrics, networks: Mapping[str, nn.Module]
    ) -> dict[str, float]:
        """Record, checkpoint and report an epoch of one trial."""
        trial.epoch += 1
        run = trial.run
        reason = divergence(metrics, run.metric, trial.learner)
        diverged = bool(reason)
        if not diverged:
            trial.costs[trial.epoch] = run.objective.cost(metrics[run.metric])
        if (best := trial.best_value()) is not None:
            metrics = {**metrics, BEST_CURVE: best}
        if self.outputs.writes:
            draw = not diverged and self.outputs.draws_pictures(trial, metrics)
            pictures = self._pictures(trial, networks) if draw else {}
            recorded = {**metrics, "diverged": float(diverged)}
            context = trial.context(reason)
            write_epoch_record(trial.folder, trial.epoch, recorded, pictures, context)
        report = ray_report(run, trial.epoch, metrics, diverged=diverged)
        self.outputs.save(trial, report, diverged=diverged)
        return report

    def _pictures(self, trial: TrialState, networks: Mapping[str, nn.Module]) -> dict[str, bytes]:
        """Draw an epoch's pictures. With the first of a trial, record those of its beginning,
        where the sliders of MLflow's pages start."""
        journal, model = Journal(trial.folder), trial.learner.model
        pictures = self.evaluator.pictures(model, networks)
        if not pictures.keys() <= journal.start().pictures.keys():
            journal.write_start(self.evaluator.start_pictures(model, trial.learner.seed))
        return pictures


def make_learner(run: Train, data: TrainingImages, num_classes: int) -> Learner:
    """Build a run's learner at its beginning, on the device of the images."""
    assert run.precision != "auto", "resolved by the process that started the run"
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


def make_data(
    run: Run, dataset: SharedDataset, device: torch.device
) -> tuple[TrainingImages, Evaluator]:
    """Put the training images of a run on a device, and build its evaluator."""
    train, validation = (as_batch(part, device) for part in (dataset.train, dataset.validation))
    data = TrainingImages(train, run.batch_size, run.drop_last, run.binarise)
    space = dataset.extractor.space(validation.images, dataset.num_classes)
    real = dataset.extractor.moments(device)
    return data, Evaluator(data.seen(NUM_CODES), validation, space, real)


def is_picture_epoch(run: Run, epoch: int) -> bool:
    """Return whether samples are drawn at the end of an epoch."""
    return epoch == 1 or epoch % run.picture_every == 0 or epoch == run.epochs


def divergence(metrics: Mapping[str, float], ranking: str, learner: Learner) -> str:
    """Return which training losses are not finite numbers, else whether the metric that ranks or a
    trained weight is not; "" if all are.

    Another metric may overflow in an epoch that is sound, as a VAE's bound does for an image that
    is far from all others: then the epoch lacks that value, and training goes on.
    """
    deciding = [*sorted(filter(_is_loss, metrics)), ranking]
    wrong = [f"{name} is {metrics[name]}" for name in deciding if not math.isfinite(metrics[name])]
    if wrong:
        return ", ".join(wrong)
    return "" if learner.has_finite_parameters() else "a weight is not a finite number"


def _is_loss(name: str) -> bool:
    return name.startswith("train/") and name.endswith("loss")


def write_epoch_record(
    folder: str | Path,
    epoch: int,
    metrics: Mapping[str, float],
    pictures: Mapping[str, bytes],
    context: EpochContext | None = None,
) -> None:
    """Write an epoch into the journal of the run in `folder`: the metrics that are finite."""
    Journal(folder).write_epoch(epoch, _finite(metrics), pictures, context)


def ray_report(
    run: Run, epoch: int, metrics: Mapping[str, float], *, diverged: bool
) -> dict[str, float]:
    """Return the report of an epoch to Ray: finite numbers, and of a run that diverged the worst
    value of the metric that ranks."""
    report = {**_finite(metrics), "epoch": epoch, "diverged": int(diverged)}
    report[run.metric] = run.objective.worst if diverged else metrics[run.metric]
    return report


def repeated_report(folder: str | Path, epoch: int) -> dict[str, float]:
    """Return the report of an epoch that is recorded already: whoever was killed may not have
    received it."""
    return {**Journal(folder).record(epoch).metrics, "epoch": epoch}


def _finite(metrics: Mapping[str, float]) -> Metrics:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
