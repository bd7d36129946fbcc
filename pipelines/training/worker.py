"""A worker of Ray Train: one of the processes that train a run together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import ray
import ray.train
import ray.train.torch

from gen_models.core.checkpoint import restore_learner, save_checkpoint
from gen_models.training.cpu import prepare_thread
from gen_models.training.distributed import any_worker, check_replicas, check_same
from gen_models.training.learner import Learner
from pipelines.cluster.shared_store import require_shared
from pipelines.config.run import Train
from pipelines.config.serialization import from_dict
from pipelines.store.checkpoints import checkpoint_folder, prune_checkpoints
from pipelines.store.files import LOCAL
from pipelines.store.journal import Journal
from pipelines.store.layout import RunFolder
from pipelines.store.stop_request import find_request
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
from pipelines.training.restoring import newest_whole

CHECKPOINTS_AHEAD = 4
"""Checkpoints that a worker keeps beside those that are asked for. It trains on for some epochs
while Tune decides to stop its trial, and the best checkpoint until that decision must outlive the
later ones. Whoever closes the run removes the rest."""


def train_worker(payload: TrainingPayload) -> None:
    """Train from the latest checkpoint, or from the beginning, to the last epoch, or until
    `genpipe stop` asks to end."""
    require_shared(payload.marker)
    prepare_thread()
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    run = from_dict(Train, payload.config)
    dataset: SharedDataset = ray.get(payload.dataset[0])
    data, evaluator = make_data(run, dataset, ray.train.torch.get_device())
    trial = TrialState(run, make_learner(run, data, dataset.num_classes), Path(payload.folder))
    _restore(trial)
    loop = EpochLoop(data, evaluator, _RayTrainOutputs(rank))

    def train(learners: Sequence[Learner]) -> None:
        (learner,) = learners
        for batch, share in data.batches(run.seed, trial.epoch + 1, rank, world):
            learner.step(batch, share)

    while trial.epoch < run.epochs:
        (report,) = loop.run([trial], train)
        if report["diverged"] or any_worker(find_request(RunFolder(trial.folder)) is not None):
            return
    check_replicas(trial.learner.networks)


def _restore(trial: TrialState) -> None:
    """Resume from the newest checkpoint, and report its epoch again: Tune may not have received
    it, and takes a trial without any report for an error.

    The run's own folder counts, and not what Ray Train remembers: it is written durably, and what
    is in it is checked.
    """

    def restore(epoch: int, folder: Path) -> int:
        restore_learner(folder, trial.learner)
        return epoch

    trial.epoch = newest_whole(trial.folder, restore) or 0
    check_same(trial.epoch, "checkpoints")
    if trial.epoch:
        trial.costs = {
            record.epoch: trial.run.objective.cost(record.metrics[trial.run.metric])
            for record in Journal(trial.folder).whole_records()
            if trial.run.metric in record.metrics
        }
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
        if self.writes and not diverged:
            with LOCAL.new_folder(checkpoint_folder(trial.folder, trial.epoch)) as folder:
                save_checkpoint(folder, trial.run.family, trial.run.optim, trial.learner)
            kept = trial.run.keep_checkpoints + CHECKPOINTS_AHEAD
            prune_checkpoints(trial.folder, trial.costs, kept, going_on=True)
        ray.train.report(dict(report))
