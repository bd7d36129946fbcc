"""How many trials an hour one GPU trains: the population of a search, without the search.

The configs of `search_throughput`, MLP VAEs on MNIST that differ in latent dimension, KL weight
and learning rate, `--epochs` epochs of 50,000 images each, validated after every epoch as genpipe
does: the bound, its importance-weighted form, a Fréchet distance. Ray's part, checkpoints, MLflow
and starting up are not in it; on a machine that has Ray, `search_throughput --ways ours` has them.

    python -m benchmarks.trials_gpu --data-root DIR --members 64

It needs neither Ray nor MLflow.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro

from benchmarks.baselines.vae import points
from benchmarks.device import switch_off_tf32, synchronize
from benchmarks.figures import DATA_ROOT, finish, say, setting
from gen_models import Batch, DataSpec, Learner, TrainingImages, vae
from gen_models.core.data import unit
from gen_models.fused.trainer import Execution, FusedTrainer
from gen_models.metrics import PCAFeatures
from gen_models.training.precision import Precision
from pipelines.data import load
from pipelines.evaluation.validation import Evaluator


@dataclass(frozen=True)
class Options:
    """Train a population on one device."""

    members: int = 64
    """K."""
    epochs: int = 10
    """Epochs of each."""
    images: int = 50_000
    """Training images."""
    batch_size: int = 128
    """Images in a step."""
    precision: Precision = "bf16"
    """Of the networks' products."""
    execution: Execution = "vectorised"
    """How members are trained."""
    compiled: bool = True
    """Whether their steps are compiled."""
    device: str = "cuda"
    """Where."""
    data_root: Path = DATA_ROOT
    """Where torchvision's MNIST lies; the environment's GENPIPE_DATA_ROOT is the default."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    switch_off_tf32()
    data, evaluator, spec = _data(options)
    learners = _members(data, spec, options)
    population, start = FusedTrainer(data, options.execution), time.perf_counter()
    training = 0.0
    for epoch in range(1, options.epochs + 1):
        before = time.perf_counter()
        population.run_epoch(learners)
        synchronize(data.device)
        training += (seconds := time.perf_counter() - before)
        models = [learner.model for learner in learners]
        metrics = evaluator.metrics(models, [learner.sampling_networks() for learner in learners])
        best = max(one["val/elbo"] for one in metrics)
        say(f"epoch {epoch}: trained in {seconds:.2f} s, best val/elbo {best:.2f}")
    total = time.perf_counter() - start
    figures = {
        "trials_per_gpu_hour": 3600 * options.members / total,
        "training_share": training / total,
        "images_per_second": options.members * options.epochs * data.images_per_epoch / training,
        "best_elbo": best,
    }
    finish("trials_gpu", figures, found)


def _data(options: Options) -> tuple[TrainingImages, Evaluator, DataSpec]:
    dataset = load("mnist", options.data_root)
    train, validation = (
        Batch.of(torch.from_numpy(images).to(options.device))
        for images in (dataset.train[: options.images], dataset.validation)
    )
    data = TrainingImages(train, options.batch_size, drop_last=True)
    space = PCAFeatures.of("pca-mnist", unit(validation.images))
    return data, Evaluator(train, validation, space), dataset.spec


def _members(data: TrainingImages, spec: DataSpec, options: Options) -> list[Learner]:
    return [
        Learner(
            vae.Model(vae.Config(latent_dim=point.latent_dim, kl_weight=point.kl_weight), spec),
            replace(vae.Optim(), lr=point.lr),
            seed=seed,
            steps_per_epoch=data.steps_per_epoch,
            device=data.device,
            precision=options.precision,
            compiled=options.compiled,
            graphs=True,
        )
        for seed, point in enumerate(points(options.members))
    ]


if __name__ == "__main__":
    main()
