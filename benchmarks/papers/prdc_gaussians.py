"""Precision, recall, density and coverage of two independent samples of one Gaussian.

10,000 samples of N(0, I) in 1,000 dimensions on either side, k = 5: the example in the README of
`prdc`, the code of Naeem et al. 2020 (github.com/clovaai/generative-evaluation-prdc). Its values
are of one unseeded draw, so those of another lie some thousandths off.

    python -m benchmarks.papers.prdc_gaussians
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass

import torch
import tyro
from torch import Generator

from benchmarks.figures import finish, setting
from gen_models.metrics import Neighbours, compute_prdc

NUM, DIM, K = 10_000, 1_000, 5
PUBLISHED = {"precision": 0.4772, "recall": 0.4705, "density": 1.0555, "coverage": 0.9735}


@dataclass(frozen=True)
class Options:
    """Compare with the published values."""

    seed: int = 0
    """Of the samples."""
    device: str = "cpu"
    """Where it is computed: a torch device."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    setting_then = setting(options)
    generator = Generator(options.device).manual_seed(options.seed)
    real, generated = (
        torch.randn(NUM, DIM, generator=generator, device=options.device) for _ in range(2)
    )
    found = asdict(compute_prdc(Neighbours.of(real, K), generated))
    ours = {name: float(found[name]) for name in PUBLISHED}
    gap = max(abs(ours[name] - value) for name, value in PUBLISHED.items())
    published = {f"{name}_published": value for name, value in PUBLISHED.items()}
    finish("papers.prdc_gaussians", {"largest_gap": gap} | ours | published, setting_then)


if __name__ == "__main__":
    main()
