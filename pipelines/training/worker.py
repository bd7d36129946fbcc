"""A worker of Ray Train: one of the processes that train a run together."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import ray
import ray.train
import ray.train.torch

from gen_models.core.checkpoint import restore_learner, save_checkpoint
from gen_models.training.cpu import prepare_thread
from gen_models.training.distributed import check_replicas
from gen_models.training.learner import Learner
from pipelines.config.run import Train
from pipelines.config.serialization import from_dict
from pipelines.store.checkpoints import checkpoint_name
from pipelines.training.loop import (
    EpochLoop,
    Metrics,
    TrialState,
    is_picture_epoch,
    make_data,
    make_learner,
    repeated_report,
)
from pipelines.training.payload import SharedDataset, TrainingPayload


def train_worker(payload: TrainingPayload) -> None:
    """Train from the latest checkpoint, or from the beginning, to the last epoch."""
    prepare_thread()
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    run = from_dict(Train, payload.config)
    dataset: SharedDataset = ray.get(payload.dataset[0])
    data, evaluator = make_data(run, dataset, ray.train.torch.get_device())
    trial = TrialState(run, make_learner(run, data, dataset.num_classes), Path(payload.folder))
    _restore(trial, ray.train.get_checkpoint())
    loop = EpochLoop(data, evaluator, _RayTrainOutputs(rank))

    def train(learners: Sequence[Learner]) -> None:
        (learner,) = learners
        for batch, share in data.batches(run.seed, trial.epoch + 1, rank, world):
            learner.step(batch, share)

    while trial.epoch < run.epochs:
        (report,) = loop.run([trial], train)
        if report["diverged"]:
            return
    check_replicas(trial.learner.networks)


def _restore(trial: TrialState, checkpoint: ray.train.Checkpoint | None) -> None:
    """Resume from a checkpoint, and report its epoch again: Tune may not have received it, and
    takes a trial without any report for an error."""
    if checkpoint is None:
        return
    with checkpoint.as_directory() as folder:
        restore_learner(Path(folder), trial.learner)
    trial.epoch = round(trial.learner.epoch)
    ray.train.report(repeated_report(trial.folder, trial.epoch))


class _RayTrainOutputs:
    """Reports to Ray Train, with a checkpoint from rank 0."""

    def __init__(self, rank: int) -> None:
        self.writes = rank == 0

    def extra_metrics(self, trial: TrialState) -> Metrics:
        return {}

    def draws_pictures(self, trial: TrialState, metrics: Metrics) -> bool:
        return is_picture_epoch(trial.run, trial.epoch)

    def save(self, trial: TrialState, report: Mapping[str, float], *, diverged: bool) -> None:
        if not self.writes or diverged:
            ray.train.report(dict(report))
            return
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(Path(folder), trial.run.family, trial.run.optim, trial.learner)
            ray.train.report(
                dict(report),
                checkpoint=ray.train.Checkpoint.from_directory(folder),
                checkpoint_dir_name=checkpoint_name(trial.epoch),
            )
