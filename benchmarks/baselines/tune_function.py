"""Ray Tune without Ray Train: a function trainable a trial, one CPU each, as in Tune's guide.

Tune starts a process per trial; each epoch is validated and reported, no checkpoint is saved.

    python -m benchmarks.baselines.tune_function --data mnist.npz --trials 48 --concurrent 2
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from benchmarks.baselines.request import Request, answer, parse
from benchmarks.baselines.vae import (
    KL_WEIGHTS,
    LATENT_DIMS,
    LEARNING_RATES,
    Point,
    load,
    make,
    train_epoch,
    validate,
)

SPACE = {
    "latent_dim": tune.choice(LATENT_DIMS),
    "kl_weight": tune.loguniform(*KL_WEIGHTS),
    "lr": tune.loguniform(*LEARNING_RATES),
}


def train(config: dict[str, Any], request: Request) -> None:
    """A trial."""
    torch.set_num_threads(1)
    point = Point(**config)
    images, validation = load(request.data)
    model, optimizer = make(point, images)
    for epoch in range(1, request.epochs + 1):
        loss = train_epoch(model, optimizer, images, request.batch_size, point.kl_weight)
        tune.report({"epoch": epoch, "loss": loss, "elbo": validate(model, validation)})


def search(request: Request, storage: Path) -> tune.ResultGrid:
    """All trials, to their end."""
    trainable = tune.with_resources(tune.with_parameters(train, request=request), {"cpu": 1})
    tuner = tune.Tuner(
        trainable,
        param_space=SPACE,
        tune_config=tune.TuneConfig(
            metric="elbo",
            mode="max",
            num_samples=request.trials,
            max_concurrent_trials=request.concurrent,
        ),
        run_config=tune.RunConfig(name="function", storage_path=str(storage), verbose=0),
    )
    return tuner.fit()


def main() -> None:
    request = parse(__doc__)
    with tempfile.TemporaryDirectory() as storage:
        ray.init(num_cpus=request.concurrent, log_to_driver=False)
        grid = search(request, Path(storage))
        best = grid.get_best_result()
        result = {"trials": len(grid), "errors": grid.num_errors, "best": best.metrics["elbo"]}
        ray.shutdown()
    answer(result)


if __name__ == "__main__":
    main()
