"""The trainer that Ray Train starts a run's workers with, and a trial that drives one.

Ray starts half a dozen processes for a run, and each imports what it is sent. So this module
imports little, and the config travels as plain values: only the workers load the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import ray.train
from ray import tune
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from gen_models.core.config import merge
from pipelines.training.payload import Job, trial_folder

if TYPE_CHECKING:
    from pipelines.evaluation.held_out import Subject

AHEAD = 4
"""Checkpoints kept beside those asked for. A worker goes on while Tune decides to stop its
trial, by some epochs, and its best checkpoint until then must outlive theirs."""


def make_trainer(job: Job, callbacks: Sequence[ray.train.UserCallback] = ()) -> TorchTrainer:
    """Ray Train's trainer of a run. The run's folder is its name, so that it resumes there."""
    run, folder = job.run, Path(job.folder)
    return TorchTrainer(
        _worker,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(num_workers=run["num_workers"], use_gpu=job.on_gpu),
        run_config=RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            failure_config=FailureConfig(
                max_failures=run["max_failures"],
                controller_failure_limit=run["max_failures"],  # Ray's default is no limit
            ),
            checkpoint_config=CheckpointConfig(
                num_to_keep=run["keep_checkpoints"] + AHEAD,
                checkpoint_score_attribute=run["metric"],
                checkpoint_score_order=run["mode"],
            ),
            callbacks=list(callbacks),
        ),
    )


def make_measuring(subject: Subject, folder: Path, num_workers: int, on_gpu: bool) -> TorchTrainer:
    """The trainer of workers that measure a model, and leave what they find in `folder`."""
    return TorchTrainer(
        _measuring_worker,
        train_loop_config={"subject": (ray.put(subject),), "folder": str(folder)},
        scaling_config=ScalingConfig(num_workers=num_workers, use_gpu=on_gpu),
        run_config=RunConfig(
            name="ray",
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
        ),
    )


def trial(config: dict[str, Any], search: Job) -> None:
    """A trial of Ray Tune: drives the workers of one config and passes their reports on."""
    folder = trial_folder(search.folder, tune.get_context().get_trial_id())
    job = Job(merge(search.run, config), str(folder), search.images, search.on_gpu)
    make_trainer(job, [TuneReportCallback()]).fit()


def _measuring_worker(config: dict[str, Any]) -> None:
    import ray.train.torch

    from gen_models.training.cpu import prepare_thread
    from pipelines.evaluation.held_out import measured

    prepare_thread()
    found = measured(ray.get(config["subject"][0]), ray.train.torch.get_device())
    if ray.train.get_context().get_world_rank() == 0:
        found.write(Path(config["folder"]))


def _worker(config: dict[str, Job]) -> None:
    from pipelines.training.worker import train_worker

    train_worker(config["job"])
