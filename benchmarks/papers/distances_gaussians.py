"""Fréchet and kernel distance of Gaussian samples against the distance of the Gaussians.

One side is N(0, I), the other either the same or N(m, s^2 I). For the Fréchet distance the closed
form is |m|^2 + dim (s - 1)^2 (Heusel et al. 2017, after Dowson & Landau 1982); for the kernel
distance it follows from the first three moments (Bińkowski et al. 2018, whose estimate is
unbiased; that of the Fréchet distance is not, and the difference shrinks with the samples).

    python -m benchmarks.papers.distances_gaussians
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from statistics import mean, stdev

import torch
import tyro
from torch import Generator

from benchmarks.figures import finish, say, setting
from gen_models.metrics import Moments, frechet_distance, kernel_distance


@dataclass(frozen=True)
class Options:
    """Compare with closed forms."""

    dim: int = 64
    """Dimensions; 64 are those of validation's principal components."""
    nums: tuple[int, ...] = (2_048, 10_000)
    """Samples on either side."""
    mean: float = 0.2
    """Every entry of m, where the sides differ."""
    std: float = 1.1
    """s, where the sides differ."""
    seeds: int = 20
    """Repetitions with fresh samples: figures are their mean and deviation."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    figures: dict[str, float] = {}
    for case, shift, std in (("equal", 0.0, 1.0), ("different", options.mean, options.std)):
        for num in options.nums:
            runs = [_measure(options.dim, num, shift, std, s) for s in range(options.seeds)]
            figures |= _summary(case, num, runs)
            say(f"{case}, {num} samples: done")
        figures[f"frechet_{case}_closed_form"] = _frechet(options.dim, shift, std)
        figures[f"kernel_{case}_closed_form"] = _kernel(options.dim, shift, std)
    finish("papers.distances_gaussians", figures, found)


def _measure(dim: int, num: int, shift: float, std: float, seed: int) -> dict[str, float]:
    """The distances of one pair of samples, and the error that ours gives for the second."""
    generator = Generator().manual_seed(seed)
    real, generated = (torch.randn(num, dim, generator=generator) for _ in range(2))
    generated = generated * std + shift
    kernel = kernel_distance(real, generated)
    return {
        "frechet": float(frechet_distance(Moments.of(real), Moments.of(generated))),
        "kernel": float(kernel.value),
        "kernel_standard_error": float(kernel.standard_error),
    }


def _summary(case: str, num: int, runs: list[dict[str, float]]) -> dict[str, float]:
    """Means over the seeds, and the deviations of the two distances."""
    values = {name: [run[name] for run in runs] for name in runs[0]}
    figures = {}
    for name in ("frechet", "kernel"):
        figures[f"{name}_{case}_{num}"] = mean(values[name])
        figures[f"{name}_{case}_{num}_deviation"] = stdev(values[name])
    figures[f"kernel_{case}_{num}_standard_error"] = mean(values["kernel_standard_error"])
    return figures


def _frechet(dim: int, shift: float, std: float) -> float:
    return dim * shift**2 + dim * (std - 1) ** 2


def _kernel(dim: int, shift: float, std: float) -> float:
    """E k(x, x') + E k(y, y') - 2 E k(x, y), where k = 1 + 3 s + 3 s^2 + s^3, s = x·y / dim."""
    square, var = dim * shift**2, std**2
    second = dim * var**2 + 2 * var * square + square**2
    third = square**3 + 6 * square**2 * var + 3 * square * var**2 * (dim + 2)
    both_real = 1 + 3 / dim
    both_generated = 1 + 3 * square / dim + 3 * second / dim**2 + third / dim**3
    mixed = 1 + 3 * (dim * var + square) / dim**2
    return both_real + both_generated - 2 * mixed


if __name__ == "__main__":
    main()
