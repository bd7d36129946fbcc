"""Evaluates a model on the test split with workers of Ray Train."""

from __future__ import annotations

from concurrent.futures import wait
from pathlib import Path
from typing import Any

import ray
import ray.train.torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import TrainingFailedError

from gen_models.training.cpu import prepare_thread
from pipelines.cluster.rendezvous import OneAddressTorchConfig
from pipelines.cluster.shared_store import require_shared
from pipelines.cluster.threads import run_in_thread
from pipelines.evaluation.held_out import HeldOutResults, HeldOutTask, evaluate_held_out
from pipelines.store.files import LOCAL, StoreError
from pipelines.store.marker import StoreMarker


def evaluate_on_workers(
    task: HeldOutTask, folder: Path, marker: StoreMarker, *, num_workers: int, on_gpu: bool
) -> HeldOutResults:
    """Evaluate a model on `num_workers` workers, each with a CPU core or, if `on_gpu`, a GPU.

    Needs a connection to Ray. `folder`: where workers write the results; it is removed at the end.
    `marker`: of the store that it lies in. The metrics are those of one process, up to the order
    of additions. Raises `ray.train.v2.api.exceptions.TrainingFailedError` if a worker fails, and
    `StoreError` if one cannot use the store.
    """
    trainer = ray.train.torch.TorchTrainer(
        _worker,
        # In a tuple, because Ray replaces a bare reference by the object.
        train_loop_config={"task": (ray.put(task),), "folder": str(folder), "marker": marker},
        torch_config=OneAddressTorchConfig(),
        scaling_config=ScalingConfig(num_workers=num_workers, use_gpu=on_gpu),
        run_config=RunConfig(
            name="ray",
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
        ),
    )
    try:
        evaluation = run_in_thread(trainer.fit)
        wait([evaluation])
        evaluation.result()
        return HeldOutResults.read(folder)
    except TrainingFailedError as error:
        raise StoreError.found_in(str(error)) or error from None
    finally:
        LOCAL.remove(folder)


def _worker(config: dict[str, Any]) -> None:
    """Evaluate as one of the workers; the first of them writes the results."""
    require_shared(config["marker"])
    prepare_thread()
    results = evaluate_held_out(ray.get(config["task"][0]), ray.train.torch.get_device())
    if ray.train.get_context().get_world_rank() == 0:
        results.write(Path(config["folder"]))
