"""The trainer with which Ray Train starts a run's workers.

Ray starts half a dozen processes for a run, and each imports what it is sent. So this module
imports little, and the config travels as plain values: the workers alone load the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ray.train
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from pipelines.training.payload import TrainingPayload

CHECKPOINTS_AHEAD = 4
"""Checkpoints that Ray Train keeps beside those that are asked for. A worker trains on for some
epochs while Tune decides to stop its trial, and the best checkpoint until that decision must
outlive the later ones. `pipelines.store.checkpoints` removes the rest when the run has ended."""


def make_trainer(
    payload: TrainingPayload, callbacks: Sequence[ray.train.UserCallback] = ()
) -> TorchTrainer:
    """Return Ray Train's trainer of a run. It resumes the run in the same folder, if there is one:
    the folder is Ray Train's run name."""
    config, folder = payload.config, Path(payload.folder)
    return TorchTrainer(
        _worker,
        train_loop_config={"payload": payload},
        scaling_config=ScalingConfig(num_workers=config["num_workers"], use_gpu=payload.on_gpu),
        run_config=RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            failure_config=FailureConfig(
                max_failures=config["max_failures"],
                controller_failure_limit=config["max_failures"],  # Ray's default is no limit
            ),
            checkpoint_config=CheckpointConfig(
                num_to_keep=config["keep_checkpoints"] + CHECKPOINTS_AHEAD,
                checkpoint_score_attribute=config["metric"],
                checkpoint_score_order=config["mode"],
            ),
            callbacks=list(callbacks),
        ),
    )


def _worker(config: dict[str, TrainingPayload]) -> None:
    from pipelines.training.worker import train_worker  # light: imports torch

    train_worker(config["payload"])
