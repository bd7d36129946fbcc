"""How long the distances between 10,000 generated and 10,000 real images take, given features.

Fréchet distance, kernel distance, and precision, recall, density and coverage, against what
torchmetrics (the first two) and torch-fidelity (no density and coverage) have of them, the same
number of threads for everyone. The features stand in for a small classifier's: ten classes,
128 dimensions, none below 0.

    python -m benchmarks.metrics_throughput

Contestants take turns as processes of their own, `--repeats` times; only the computation is
timed, after a small warm-up, and figures are of each one's median.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from torch import Generator, Tensor

from benchmarks.figures import finish, medians, run_python, say, scratch, setting

Contestant = Literal["ours", "torchmetrics", "torch_fidelity"]
ALL: tuple[Contestant, ...] = ("ours", "torchmetrics", "torch_fidelity")

_CLASSES, _LATENT = 10, 32


@dataclass(frozen=True)
class Options:
    """Compare the speed of distances."""

    num: int = 10_000
    """Features on either side."""
    dim: int = 128
    """Their dimensions."""
    threads: int = 2
    """Threads of each contestant."""
    repeats: int = 3
    """Runs of each, in turn; the figures are of their medians."""
    contestants: tuple[Contestant, ...] = ALL
    """Who takes part."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    with scratch() as folder:
        path = _features_file(folder, options)
        runs = [_measure(options, path) for _ in range(options.repeats)]
    finish("metrics_throughput", _figures(medians(runs)), found)


def _features_file(folder: Path, options: Options) -> Path:
    """Features of either side: generated ones vary less within a class."""
    path = folder / "features.npz"
    real = _features(options, 1, 1.0)
    generated = _features(options, 2, 0.8)
    np.savez(path, real=real.numpy(), generated=generated.numpy())
    return path


def _features(options: Options, seed: int, spread: float) -> Tensor:
    """(num, dim), float32: Gaussian classes by a fixed random projection, rectified."""
    fixed = Generator().manual_seed(0)
    means = 2 * torch.randn(_CLASSES, _LATENT, generator=fixed)
    projection = torch.randn(_LATENT, options.dim, generator=fixed) / _LATENT**0.5
    generator = Generator().manual_seed(seed)
    labels = torch.randint(_CLASSES, (options.num,), generator=generator)
    noise = torch.randn(options.num, _LATENT, generator=generator)
    features: Tensor = (means[labels] + spread * noise) @ projection
    return features.relu()


def _measure(options: Options, path: Path) -> dict[str, float]:
    """Seconds of each contestant's distances, once, by `contestant/distance`."""
    seconds: dict[str, float] = {}
    for name in options.contestants:
        args = ["-m", "benchmarks.distances", name, str(path)]
        found, _ = run_python(args, threads=options.threads)
        seconds |= {f"{name}/{metric}": value for metric, value in found.items()}
        say(f"{name}: " + ", ".join(f"{metric} {value:.2f} s" for metric, value in found.items()))
    return seconds


def _figures(seconds: dict[str, float]) -> dict[str, float]:
    """A rival's time over ours for the same distances."""
    table: dict[str, dict[str, float]] = {}
    for key, value in seconds.items():
        name, metric = key.split("/")
        table.setdefault(name, {})[metric] = value
    own = table.get("ours", {})
    figures = {"seconds": sum(own.values())} if own else {}
    for name, metrics in table.items():
        if own and name != "ours":
            figures[f"over_{name}"] = sum(metrics.values()) / sum(own[m] for m in metrics)
    return figures | {f"seconds_{key.replace('/', '_')}": v for key, v in seconds.items()}


if __name__ == "__main__":
    main()
