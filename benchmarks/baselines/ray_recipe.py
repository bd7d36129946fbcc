"""Ray's documented way to search with Ray Train: Tune trials that each drive a `TorchTrainer`.

After Ray 2.60's guide "Hyperparameter Tuning with Ray Tune": a function trainable per trial,
`TuneReportCallback`, one checkpoint a report, `max_concurrent_trials`. Drivers take no CPU,
for one that holds the CPU which its worker waits for hangs; all else is Ray's default.

    python -m benchmarks.baselines.ray_recipe --data mnist.npz --trials 48 --concurrent 2
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from benchmarks.baselines.request import Request, answer, parse
from benchmarks.baselines.tune_function import SPACE
from benchmarks.baselines.vae import Point, load, make, train_epoch, validate

DRIVER = {"CPU": 0, "node:__internal_head__": 0.001}


def train_fn_per_worker(train_loop_config: dict[str, Any]) -> None:
    """What each worker of a trial does."""
    request: Request = train_loop_config["request"]
    point: Point = train_loop_config["point"]
    images, validation = load(request.data)
    model, optimizer = make(point, images)
    wrapped = ray.train.torch.prepare_model(model)
    for epoch in range(1, request.epochs + 1):
        loss = train_epoch(wrapped, optimizer, images, request.batch_size, point.kl_weight)
        metrics = {"epoch": epoch, "loss": loss, "elbo": validate(wrapped, validation)}
        with tempfile.TemporaryDirectory() as folder:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, Path(folder) / "state.pt")
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(metrics, checkpoint=checkpoint)


def train_driver_fn(config: dict[str, Any], request: Request, storage: str) -> None:
    """A trial: runs the worker and passes its reports on."""
    trainer = ray.train.torch.TorchTrainer(
        train_fn_per_worker,
        train_loop_config={"point": Point(**config), "request": request},
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(
            name=f"train-trial_id={tune.get_context().get_trial_id()}",
            storage_path=storage,
            callbacks=[TuneReportCallback()],
        ),
    )
    trainer.fit()


def search(request: Request, storage: str) -> tune.ResultGrid:
    """All trials, to their end."""
    driver = tune.with_parameters(train_driver_fn, request=request, storage=storage)
    tuner = tune.Tuner(
        tune.with_resources(driver, DRIVER),
        param_space=SPACE,
        tune_config=tune.TuneConfig(
            metric="elbo",
            mode="max",
            num_samples=request.trials,
            max_concurrent_trials=request.concurrent,
        ),
        run_config=tune.RunConfig(name="recipe", storage_path=storage, verbose=0),
    )
    return tuner.fit()


def main() -> None:
    request = parse(__doc__)
    with tempfile.TemporaryDirectory() as storage:
        ray.init(num_cpus=request.concurrent, log_to_driver=False)
        grid = search(request, storage)
        best = grid.get_best_result()
        result = {"trials": len(grid), "errors": grid.num_errors, "best": best.metrics["elbo"]}
        ray.shutdown()
    answer(result)


if __name__ == "__main__":
    main()
