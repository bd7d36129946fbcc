"""What runs in each worker of a run: one loop, whatever the family and its objectives.

A worker leaves its results in the run's journal and reports them to Ray Train once an epoch.
"""

from __future__ import annotations

import math
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
from torch import Tensor

import gen_models
from gen_models.core.batches import epoch_batches, num_batches
from gen_models.core.checkpoint import restore_learner, save_checkpoint
from gen_models.core.contract import DataSpec
from gen_models.core.distributed import check_replicas
from gen_models.core.learner import Learner
from pipelines.config import Train, run_from_dict
from pipelines.evaluate import Evaluator, unit
from pipelines.job import Images, Job
from pipelines.journal import Journal, checkpoint_name

WORST = 1e30
"""Stands for a metric that is not finite where Ray wants a number: Tune never stops a NaN."""


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
        run = run_from_dict(Train, job.run)
        images: Images = ray.get(job.images[0])
        self.run, self.rank, self.world = run, rank, world
        self.journal = Journal(job.folder)
        self.device = ray.train.torch.get_device()
        self.train = _tensor(images.train).to(self.device)
        spec = DataSpec(images.train.shape[1:], images.num_classes)
        model = gen_models.family(run.family).Model(run.model, spec)
        self.learner = Learner(
            model,
            run.optim,
            seed=run.seed,
            steps_per_epoch=num_batches(len(self.train), run.batch_size, run.drop_last),
            device=self.device,
        )
        validation = _tensor(images.validation).to(self.device)
        self.evaluator = Evaluator(model, self.train, validation, self.device)

    def restore(self, checkpoint: ray.train.Checkpoint | None) -> int:
        """Take up the checkpoint; the epochs done."""
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                restore_learner(Path(folder), self.learner)
        return round(self.learner.epoch)

    def repeat_report(self, epoch: int) -> None:
        """Report again the epoch of the checkpoint. Whoever was killed may not have heard of it,
        and if it was the last one, Tune takes a trial without any report for an error."""
        report = next(self.journal.reports(after=epoch - 1, upto=epoch))
        ray.train.report({**report.metrics, "epoch": epoch})

    def run_epoch(self, epoch: int) -> bool:
        """Train, validate and report one epoch. False where the run diverged and must end."""
        start = time.perf_counter()
        num_images = self._train_epoch(epoch)
        metrics = {f"train/{k}": v for k, v in self.learner.pop_metrics().items()}
        seconds = time.perf_counter() - start
        networks = self.learner.sampling_networks()
        metrics |= self.evaluator.metrics(networks)
        metrics |= {"epoch_seconds": seconds, "images_per_second": num_images / seconds}
        finite = {k: v for k, v in metrics.items() if math.isfinite(v)}
        diverged = len(finite) < len(metrics)
        pictures = {}
        if self.rank == 0:
            if self._is_picture_epoch(epoch) and not diverged:
                pictures = self.evaluator.pictures(networks)
            self.journal.report(epoch, {**finite, "diverged": float(diverged)}, pictures)
        self._report(epoch, finite, diverged)
        return not diverged

    def _train_epoch(self, epoch: int) -> int:
        run, num_images = self.run, 0
        batches = epoch_batches(
            len(self.train),
            run.batch_size,
            run.drop_last,
            run.seed,
            epoch,
            self.rank,
            self.world,
        )
        for indices, share in batches:
            self.learner.step(unit(self.train[indices.to(self.device)], self.device), share)
            num_images += share.num
        return num_images

    def _is_picture_epoch(self, epoch: int) -> bool:
        return epoch == 1 or epoch % self.run.picture_every == 0 or epoch == self.run.epochs

    def _report(self, epoch: int, metrics: Mapping[str, float], diverged: bool) -> None:
        run = self.run
        worst = WORST if run.mode == "min" else -WORST
        told = {**metrics, "epoch": epoch, "diverged": int(diverged)}
        told[run.metric] = worst if diverged else metrics[run.metric]
        if self.rank != 0 or diverged:
            ray.train.report(told)
            return
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(Path(folder), run.family, run.optim, self.learner)
            ray.train.report(
                told,
                checkpoint=ray.train.Checkpoint.from_directory(folder),
                checkpoint_dir_name=checkpoint_name(epoch),
            )


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    with warnings.catch_warnings():
        # The object store's memory is read-only, and nobody writes to images.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
