"""The trainer with which Ray Train starts a run's workers.

Ray starts half a dozen processes for a run, and each imports what it is sent. So this module
imports little, and the config travels as plain values: the workers alone load the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from pipelines.cluster.rendezvous import OneAddressTorchConfig
from pipelines.store.files import LOCAL
from pipelines.training.payload import TrainingPayload

_SNAPSHOT = "checkpoint_manager_snapshot.json"
"""What Ray Train remembered of the checkpoints of a run of an older version. It refuses to start
if one of them is gone; the workers find the checkpoints themselves."""


def make_trainer(
    payload: TrainingPayload, callbacks: Sequence[ray.train.UserCallback] = ()
) -> TorchTrainer:
    """Return Ray Train's trainer of a run. It resumes the run in the same folder, if there is one:
    the folder is Ray Train's run name."""
    config, folder = payload.config, Path(payload.folder)
    LOCAL.remove(folder / _SNAPSHOT)
    return TorchTrainer(
        _worker,
        train_loop_config={"payload": payload},
        torch_config=OneAddressTorchConfig(),
        scaling_config=ScalingConfig(num_workers=config["num_workers"], use_gpu=payload.on_gpu),
        run_config=RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            failure_config=FailureConfig(
                max_failures=config["max_failures"],
                controller_failure_limit=config["max_failures"],  # Ray's default is no limit
            ),
            callbacks=list(callbacks),
        ),
    )


def _worker(config: dict[str, TrainingPayload]) -> None:
    from pipelines.training.worker import train_worker  # light: imports torch

    train_worker(config["payload"])
