"""One learner on a GPU: eager, recorded as CUDA graphs, compiled, in fp32 and in bf16.

Every family and architecture with its defaults on 28x28 images, a batch of 128; against itself in
eager fp32 (tf32 off). Timed in this run with the device's events, batches and random numbers
included, and beside it the floor, as `benchmarks.device` counts it.

    python -m benchmarks.train_gpu

It needs neither Ray nor MLflow.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Literal

import torch
import tyro

import gen_models
from benchmarks.contestants import Contestant, Measuring, alone
from benchmarks.device import Ceilings, switch_off_tf32
from benchmarks.figures import finish, say, setting
from gen_models import TrainingImages
from gen_models.training.precision import Precision

Way = Literal["eager", "recorded", "compiled"]

_SHAPE = (1, 28, 28)


@dataclass(frozen=True)
class Options(Measuring):
    """Compare ways of training one model on one device."""

    families: tuple[str, ...] = tuple(gen_models.names())
    """Which."""
    archs: tuple[Literal["mlp", "conv"], ...] = ("mlp", "conv")
    """Their networks."""
    ways: tuple[Way, ...] = ("eager", "recorded", "compiled")
    """As it is; its steps recorded as CUDA graphs; its losses compiled, and that recorded."""
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    """Of the networks' products."""
    batch_size: int = 128
    """Images in a step."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    switch_off_tf32()
    ceilings = Ceilings.measure(torch.device(options.device))
    figures = ceilings.figures()
    for family in options.families:
        for arch in options.archs:
            module = gen_models.family(family)
            config = replace(module.Config(), arch=arch)
            contestant = Contestant(family, config, module.Optim(), _SHAPE, options.batch_size)
            compared = _compare(f"{family}_{arch}", contestant, ceilings, options)
            figures |= {f"{family}_{arch}_{name}": value for name, value in compared.items()}
    finish("train_gpu", figures, found)


def _compare(
    name: str, contestant: Contestant, ceilings: Ceilings, options: Options
) -> dict[str, float]:
    """Images a second in each of the ways, the best over eager fp32, and its part of the floor."""
    data = contestant.images(torch.device(options.device), options.data_root)
    work = contestant.work(data)
    figures: dict[str, float] = {}
    best, of_floor = 0.0, 0.0
    for way in options.ways:
        for precision in options.precisions:
            seconds = _seconds(contestant, data, way, precision, options)
            rate = contestant.batch_size / seconds
            part = work.floor(ceilings, precision) / seconds
            say(f"{name}: {way} {precision} {rate:,.0f} images a second, {part:.2f} of the floor")
            figures[f"images_per_second_{way}_{precision}"] = rate
            if rate > best:
                best, of_floor = rate, part
    if "images_per_second_eager_fp32" in figures:
        figures["single_over_eager"] = best / figures["images_per_second_eager_fp32"]
    return figures | {"of_floor": of_floor}


def _seconds(
    contestant: Contestant,
    data: TrainingImages,
    way: Way,
    precision: Precision,
    options: Options,
) -> float:
    learner = contestant.learner(
        data, precision=precision, compiled=way == "compiled", graphs=way != "eager"
    )
    return options.seconds(alone(learner, data))


if __name__ == "__main__":
    main()
