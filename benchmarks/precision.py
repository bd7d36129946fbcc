"""Whether bfloat16 costs quality: every family and architecture in fp32 and in bf16, by seeds.

Each is trained on scikit-learn's digits, as a member of one population; the metric says what the
family is for. bf16 is good enough where its mean lies within what seeds alone make of fp32. With
`--curves` the epochs' metrics of both are said side by side.

    python -m benchmarks.precision
    python -m benchmarks.precision --device cuda --execution vectorised --curves

It needs neither Ray nor MLflow.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
import tyro

import gen_models
from benchmarks.device import switch_off_tf32
from benchmarks.figures import finish, say, setting
from gen_models import Batch, Learner
from gen_models.core.data import unit
from gen_models.fused.trainer import Execution, FusedTrainer
from gen_models.metrics import PCAFeatures
from gen_models.training.batches import TrainingImages
from gen_models.training.precision import Precision
from pipelines.data import Dataset, load
from pipelines.evaluation.metric_names import frechet_name
from pipelines.evaluation.validation import Evaluator

SPACE = "pca-digits"
METRICS = {"autoencoder": "val/squared_error", "vae": "val/elbo"}
"""What is said of a family; of others the Fréchet distance of samples."""


@dataclass(frozen=True)
class Options:
    """Compare precisions."""

    epochs: int = 20
    """Epochs of each run."""
    seeds: int = 4
    """Runs of each kind."""
    batch_size: int = 32
    """Images in a step."""
    channels: int = 16
    """conv: channels of the largest feature map."""
    device: str = "cpu"
    """Where."""
    execution: Execution = "in_turn"
    """How the members of a kind are trained."""
    curves: bool = False
    """Also say each epoch's training metrics, means over the seeds, fp32 beside bf16."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    switch_off_tf32()
    dataset = load("digits", Path())
    train, validation = (
        _batch(dataset, split, options.device) for split in ("train", "validation")
    )
    data = TrainingImages(train, options.batch_size, drop_last=True)
    space = PCAFeatures.of(SPACE, unit(validation.images))
    evaluator = Evaluator(train, validation, space)
    figures: dict[str, float] = {}
    for family in gen_models.names():
        for arch in ("mlp", "conv"):
            name, curves = f"{family}_{arch}", []
            metric = METRICS.get(family, frechet_name(SPACE))
            for precision in ("fp32", "bf16"):
                learners = _learners(family, arch, precision, data, dataset.spec, options)
                curves.append(_train(learners, data, options))
                values = _values(learners, evaluator, metric)
                figures |= {f"{name}_{precision}": mean(values)}
                figures |= {f"{name}_{precision}_deviation": stdev(values)}
                say(f"{name}_{precision}: {metric} {mean(values):.4f} ± {stdev(values):.4f}")
            if options.curves:
                say(_side_by_side(*curves))
    finish("precision", figures, found)


def _batch(dataset: Dataset, split: Any, device: str) -> Batch:
    part = dataset.part(split)
    assert part.labels is not None
    return Batch(
        torch.from_numpy(part.images).to(device), torch.from_numpy(part.labels).to(device)
    )


def _learners(
    family: str,
    arch: str,
    precision: Precision,
    data: TrainingImages,
    spec: Any,
    options: Options,
) -> list[Learner]:
    """One a seed."""
    module = gen_models.family(family)
    config = replace(module.Config(), arch=arch, channels=options.channels)
    return [
        Learner(
            module.Model(config, spec),
            module.Optim(),
            seed=seed,
            steps_per_epoch=data.steps_per_epoch,
            device=options.device,
            precision=precision,
            graphs=True,
        )
        for seed in range(options.seeds)
    ]


def _train(
    learners: list[Learner], data: TrainingImages, options: Options
) -> list[dict[str, float]]:
    """Each epoch's training metrics, means over the seeds."""
    population, curve = FusedTrainer(data, options.execution), []
    for _ in range(options.epochs):
        population.run_epoch(learners)
        each = [learner.pop_metrics() for learner in learners]
        curve.append({name: mean(one[name] for one in each) for name in each[0]})
    return curve


def _values(learners: list[Learner], evaluator: Evaluator, metric: str) -> list[float]:
    """The metric at the end of training, of each seed."""
    return [
        evaluator.metrics([learner.model], [learner.sampling_networks()])[0][metric]
        for learner in learners
    ]


def _side_by_side(fp32: list[dict[str, float]], bf16: list[dict[str, float]]) -> str:
    lines = [
        f"  epoch {epoch}: "
        + ", ".join(f"{name} {one[name]:.4f} {other[name]:.4f}" for name in one)
        for epoch, (one, other) in enumerate(zip(fp32, bf16, strict=True), 1)
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
