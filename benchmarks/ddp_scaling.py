"""What a second worker is worth: images a second of the convolutional VAE on one and on two.

The global batch is the same, so each of two workers computes half of every batch and both wait
for each other's gradients. Each worker has one thread, or one worker would use both cores.

    python -m benchmarks.ddp_scaling --data-root DIR
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from benchmarks.figures import (
    DATA_ROOT,
    cores,
    finish,
    medians,
    mnist_npz,
    say,
    scratch,
    setting,
    train_speed,
)


@dataclass(frozen=True)
class Options:
    """Compare one worker with two."""

    batch_size: int = 256
    """Images in a step, over all workers."""
    epochs: int = 3
    """Epochs; the first is not counted."""
    images: int = 10_000
    """Training images."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """The same for both."""
    repeats: int = 1
    """Runs of each, in turn; the figures are of their medians."""
    data_root: Path = DATA_ROOT
    """Where torchvision's MNIST lies; the environment's GENPIPE_DATA_ROOT is the default."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    if cores() < 2:
        raise SystemExit("1 CPU core: expected at least 2, one for each worker")
    with scratch() as folder:
        data = mnist_npz(folder, options.data_root, options.images)
        runs = [_measure(options, data) for _ in range(options.repeats)]
    figures = medians(runs)
    speedup = figures[_name(2)] / figures[_name(1)]
    finish("ddp_scaling", {"speedup_2_workers": speedup} | figures, found)


def _measure(options: Options, data: Path) -> dict[str, float]:
    """Images a second on one worker and on two, once."""
    rates = {}
    for workers in (1, 2):
        settings = {
            "data": f"npz:{data}",
            "model.arch": "conv",
            "epochs": options.epochs,
            "batch-size": options.batch_size,
            "precision": options.precision,
            "num-workers": workers,
            "device": "cpu",
        }
        args = ["vae", *(f"--{key}={value}" for key, value in settings.items())]
        rates[_name(workers)] = train_speed(args, threads=1)
        say(f"{_name(workers)}: {rates[_name(workers)]:,.0f}")
    return rates


def _name(workers: int) -> str:
    return f"images_per_second_{workers}_worker{'s' if workers > 1 else ''}"


if __name__ == "__main__":
    main()
