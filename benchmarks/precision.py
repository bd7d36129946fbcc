"""Whether bfloat16 costs quality: every family and architecture in fp32 and in bf16, by seeds.

Each is trained on scikit-learn's digits, without Ray, as a member of one population; the metric
is the one that ranks the family's trials. bf16 is good enough where its mean lies within what
seeds alone make of fp32.

    python -m benchmarks.precision
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from statistics import mean, stdev
from typing import Any

import tyro

import gen_models
from benchmarks.figures import finish, say, setting
from gen_models.core import Learner
from gen_models.core.batches import TrainingImages, unit
from gen_models.core.population import Population
from gen_models.core.precision import Precision
from gen_models.metrics import PCAFeatures
from pipelines.config import Train, defaults
from pipelines.data import load
from pipelines.epoch import as_batch
from pipelines.evaluate import Evaluator


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


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    figures: dict[str, float] = {}
    dataset = load("digits", defaults(Train, "vae").data_root)
    train, validation = (as_batch(dataset.part(split)) for split in ("train", "validation"))
    data = TrainingImages(train, options.batch_size, drop_last=True)
    space = PCAFeatures.of("pca-digits", unit(validation.images))
    evaluator = Evaluator(train, validation, space)
    for family in gen_models.names():
        for arch in ("mlp", "conv"):
            run = defaults(Train, family)
            config = replace(run.model, arch=arch, channels=options.channels)
            run = replace(run, model=config, epochs=options.epochs)
            for precision in ("fp32", "bf16"):
                values = _values(run, precision, options.seeds, data, evaluator, dataset.spec)
                name = f"{family}_{arch}_{precision}"
                figures |= {name: mean(values), f"{name}_deviation": stdev(values)}
                say(f"{name}: {run.metric} {mean(values):.4f} ± {stdev(values):.4f}")
    finish("precision", figures, found)


def _values(
    run: Train,
    precision: Precision,
    seeds: int,
    data: TrainingImages,
    evaluator: Evaluator,
    spec: Any,
) -> list[float]:
    """The metric that ranks the family, at the end of training, for each seed."""
    model = gen_models.family(run.family).Model(run.model, spec)
    steps = data.steps_per_epoch
    learners = [
        Learner(model, run.optim, seed=seed, steps_per_epoch=steps, precision=precision)
        for seed in range(seeds)
    ]
    population = Population(data, "in_turn")
    for _ in range(run.epochs):
        population.run_epoch(learners)
    return [
        evaluator.metrics([learner.model], [learner.sampling_networks()])[0][run.metric]
        for learner in learners
    ]


if __name__ == "__main__":
    main()
