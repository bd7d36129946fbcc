"""How long metrics take on a GPU: distances of 50,000 samples, the likelihood of 10,000 images.

Fréchet and kernel distance, precision, recall, density and coverage between features that stand
in for a small classifier's; the importance-weighted bound by 5,000 samples of the default VAE,
whose weights are as they were drawn, for that takes as long. Each is timed after a small warm-up,
`--repeats` times; figures are medians.

    python -m benchmarks.metrics_gpu

It needs neither Ray nor MLflow.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
import tyro
from torch import Generator

from benchmarks.contestants import contestants
from benchmarks.device import switch_off_tf32, synchronize
from benchmarks.distances import Distance, ours
from benchmarks.figures import finish, say, setting
from gen_models import Batch
from gen_models.metrics import estimate_likelihood


@dataclass(frozen=True)
class Options:
    """Time metrics on one device."""

    num: int = 50_000
    """Features on either side."""
    dim: int = 128
    """Their dimensions."""
    images: int = 10_000
    """Images whose likelihood is bounded."""
    samples: int = 5_000
    """Importance samples for each image."""
    repeats: int = 3
    """Runs of each."""
    device: str = "cuda"
    """Where."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    switch_off_tf32()
    device = torch.device(options.device)
    generator = Generator(device).manual_seed(0)
    real, fake = (
        torch.randn(options.num, options.dim, generator=generator, device=device).relu_()
        for _ in range(2)
    )
    contestant = contestants(8)["mlp_vae"]
    learner = contestant.learner(contestant.images(device))
    networks = learner.sampling_networks()
    images = Batch.of(torch.rand(options.images, *contestant.shape, device=device))

    def nll(precision: str) -> Callable[[int], object]:
        return lambda num: estimate_likelihood(
            learner.model,
            networks,
            images.rows(slice(num)),
            num_samples=options.samples,
            precision=precision,  # type: ignore[arg-type]
        )

    def distance(measure: Distance) -> Callable[[int], object]:
        return lambda num: measure(real[:num], fake[:num])

    measured: dict[str, tuple[Callable[[int], object], int]] = {
        **{name: (distance(measure), options.num) for name, measure in ours().items()},
        "nll_fp32": (nll("fp32"), options.images),
        "nll_bf16": (nll("bf16"), options.images),
    }
    figures = {}
    for name, (measure, num) in measured.items():
        seconds = _seconds(measure, num, device, options.repeats)
        say(f"{name}: {seconds:.3f} s")
        figures[f"seconds_{name}"] = seconds
    distances = sum(figures[f"seconds_{name}"] for name in ours())
    finish("metrics_gpu", {"metrics_seconds": distances, **figures}, found)


def _seconds(
    measure: Callable[[int], object], num: int, device: torch.device, repeats: int
) -> float:
    """The median time, after a small run to warm up."""
    measure(min(num, 512))
    seconds = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        measure(num)
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return median(seconds)


if __name__ == "__main__":
    main()
