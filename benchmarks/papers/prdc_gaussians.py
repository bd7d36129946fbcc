"""Precision, recall, density and coverage of two independent samples of one Gaussian.

10,000 samples of N(0, I) in 1,000 dimensions on either side, k = 5: the example in the README of
`prdc`, the code of Naeem et al. 2020 (github.com/clovaai/generative-evaluation-prdc), which says
that its values, of one unseeded draw, fluctuate: the density by some hundredths, for in so many
dimensions few balls hold many points. `most_deviations` is how far the published draw lies from
the mean of ours, in deviations of a draw.

Closed forms: of N real and M generated features of one distribution, a generated one is among
the k nearest of a real one by a chance of k / N, so the density is 1, and the coverage is 1 less
the chance that the k nearest of N + M - 1 others are all real (Naeem et al. 2020, lemma 2).

    python -m benchmarks.papers.prdc_gaussians
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from math import comb
from statistics import mean, stdev

import torch
import tyro
from torch import Generator

from benchmarks.figures import finish, say, setting
from gen_models.metrics import Neighbours, compute_prdc

NUM, DIM, K = 10_000, 1_000, 5
PUBLISHED = {"precision": 0.4772, "recall": 0.4705, "density": 1.0555, "coverage": 0.9735}


@dataclass(frozen=True)
class Options:
    """Compare with the published values."""

    seeds: int = 5
    """Draws: figures are their mean and deviation."""
    device: str = "cpu"
    """Where it is computed: a torch device."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    if options.seeds < 2:
        raise SystemExit(f"seeds = {options.seeds}: expected at least 2")
    runs = [_measure(seed, options.device) for seed in range(options.seeds)]
    figures = {"most_deviations": 0.0}
    for name, published in PUBLISHED.items():
        values = [run[name] for run in runs]
        figures |= {name: mean(values), f"{name}_deviation": stdev(values)}
        figures[f"{name}_published"] = published
        gap = abs(published - mean(values)) / stdev(values)
        figures["most_deviations"] = max(figures["most_deviations"], gap)
    figures["density_closed_form"] = 1.0
    figures["coverage_closed_form"] = 1 - comb(NUM - 1, K) / comb(2 * NUM - 1, K)
    finish("papers.prdc_gaussians", figures, found)


def _measure(seed: int, device: str) -> dict[str, float]:
    generator = Generator(device).manual_seed(seed)
    real, generated = (torch.randn(NUM, DIM, generator=generator, device=device) for _ in range(2))
    found = asdict(compute_prdc(Neighbours.of(real, K), generated))
    values = {name: float(value) for name, value in found.items()}
    say(f"seed {seed}: " + ", ".join(f"{name} {value:.4f}" for name, value in values.items()))
    return values


if __name__ == "__main__":
    main()
