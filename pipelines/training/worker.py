"""What runs in each worker of a run: one loop, whatever the family and its objectives.

A worker leaves its results in the run's journal and reports them to Ray Train once an epoch.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import ray
import ray.train
import ray.train.torch

from gen_models.core.checkpoint import restore_learner, save_checkpoint
from gen_models.training.cpu import prepare_thread
from gen_models.training.distributed import check_replicas
from pipelines.config.run import Train, run_from_dict
from pipelines.store.journal import Journal, checkpoint_name
from pipelines.training.loop import (
    has_diverged,
    is_picture_epoch,
    make_data,
    make_learner,
    record,
    told,
)
from pipelines.training.payload import Images, Job


def train_worker(job: Job) -> None:
    """Train from the latest checkpoint, or from the start, to the last epoch."""
    context = ray.train.get_context()
    session = Session(job, context.get_world_rank(), context.get_world_size())
    start = session.restore(ray.train.get_checkpoint())
    if start:
        session.repeat_report(start)
    for epoch in range(start + 1, session.run.epochs + 1):
        if not session.run_epoch(epoch):
            return
    check_replicas(session.learner.networks)


class Session:
    """One worker's share of a run."""

    def __init__(self, job: Job, rank: int, world: int) -> None:
        prepare_thread()
        self.run = run = run_from_dict(Train, job.run)
        self.rank, self.world = rank, world
        self.folder = job.folder
        images: Images = ray.get(job.images[0])
        device = ray.train.torch.get_device()
        self.data, self.evaluator = make_data(run, images, device)
        self.learner = make_learner(run, self.data, images.num_classes)

    def restore(self, checkpoint: ray.train.Checkpoint | None) -> int:
        """Take up the checkpoint; the epochs done."""
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                restore_learner(Path(folder), self.learner)
        return round(self.learner.epoch)

    def repeat_report(self, epoch: int) -> None:
        """Report again the epoch of the checkpoint. Whoever was killed may not have heard of it,
        and if it was the last one, Tune takes a trial without any report for an error."""
        report = next(Journal(self.folder).reports(after=epoch - 1, upto=epoch))
        ray.train.report({**report.metrics, "epoch": epoch})

    def run_epoch(self, epoch: int) -> bool:
        """Train, validate and report one epoch. False where the run diverged and must end."""
        start, num_images = time.perf_counter(), 0
        for batch, share in self.data.batches(self.run.seed, epoch, self.rank, self.world):
            self.learner.step(batch, share)
            num_images += share.num
        metrics = {f"train/{k}": v for k, v in self.learner.pop_metrics().items()}
        seconds = time.perf_counter() - start
        networks = self.learner.sampling_networks()
        metrics |= self.evaluator.metrics([self.learner.model], [networks])[0]
        metrics |= {"epoch_seconds": seconds, "images_per_second": num_images / seconds}
        diverged = has_diverged(metrics)
        if self.rank == 0:
            draw = is_picture_epoch(self.run, epoch) and not diverged
            pictures = self.evaluator.pictures(self.learner.model, networks) if draw else {}
            record(self.folder, epoch, metrics, pictures)
        self._report(epoch, metrics, diverged)
        return not diverged

    def _report(self, epoch: int, metrics: Mapping[str, float], diverged: bool) -> None:
        content = told(self.run, epoch, metrics)
        if self.rank != 0 or diverged:
            ray.train.report(content)
            return
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(Path(folder), self.run.family, self.run.optim, self.learner)
            ray.train.report(
                content,
                checkpoint=ray.train.Checkpoint.from_directory(folder),
                checkpoint_dir_name=checkpoint_name(epoch),
            )
