"""How many images a second one learner trains on, in the steady state, against three rivals.

The default VAE on MNIST, one process, the same number of threads for everyone (Ray gives a
worker with one CPU one thread, and `--threads` sets that for all): `genpipe train` in fp32, in
its automatic precision, and so compiled; a bare PyTorch loop over tensors in memory; pythae's
`BaseTrainer`; Lightning's `Trainer`. Only whole epochs after the first count, and nobody's
validation.

    python -m benchmarks.train_throughput --data-root DIR --bench-python .venv-bench/bin/python

Contestants take turns, `--repeats` times; figures are of each one's median.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Literal

import tyro

from benchmarks.baselines.request import Request
from benchmarks.figures import (
    DATA_ROOT,
    ROOT,
    finish,
    medians,
    mnist_npz,
    run_python,
    say,
    scratch,
    setting,
    train_speed,
)

Contestant = Literal["bare", "ours_fp32", "ours_auto", "ours_compiled", "pythae", "lightning"]
ALL: tuple[Contestant, ...] = (
    "bare",
    "ours_fp32",
    "ours_auto",
    "ours_compiled",
    "pythae",
    "lightning",
)

_RATIOS: dict[str, tuple[Contestant, Contestant]] = {
    "of_bare_fp32": ("ours_fp32", "bare"),
    "of_bare_auto": ("ours_auto", "bare"),
    "of_bare_compiled": ("ours_compiled", "bare"),
    "over_pythae": ("ours_auto", "pythae"),
    "over_lightning": ("ours_auto", "lightning"),
}


@dataclass(frozen=True)
class Options:
    """Compare the speed of a training loop."""

    batch_size: int = 128
    """Images in a step."""
    epochs: int = 4
    """Epochs; the first is not counted."""
    images: int = 50_000
    """Training images."""
    threads: int = 1
    """Threads of each contestant."""
    repeats: int = 3
    """Runs of each, in turn; the figures are of their medians."""
    contestants: tuple[Contestant, ...] = ALL
    """Who takes part."""
    bench_python: Path = ROOT / ".venv-bench" / "bin" / "python"
    """The Python that has pythae and Lightning: see benchmarks/requirements.txt."""
    data_root: Path = DATA_ROOT
    """Where torchvision's MNIST lies; the environment's GENPIPE_DATA_ROOT is the default."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    if options.epochs < 2:
        raise SystemExit(f"epochs = {options.epochs}: expected at least 2")
    _require_rivals(options)
    with scratch() as folder:
        data = mnist_npz(folder, options.data_root, options.images)
        request = Request(data, options.epochs, options.batch_size)
        runs = [_measure(options, request) for _ in range(options.repeats)]
    finish("train_throughput", _figures(medians(runs)), found)


def _require_rivals(options: Options) -> None:
    wanted = {"pythae", "lightning"} & set(options.contestants)
    if wanted and not options.bench_python.is_file():
        raise SystemExit(
            f"bench_python = '{options.bench_python}': expected a Python with "
            f"{', '.join(sorted(wanted))}, as benchmarks/requirements.txt has them"
        )


def _measure(options: Options, request: Request) -> dict[str, float]:
    """Images a second of each contestant, once."""
    bench, threads = options.bench_python.absolute(), options.threads
    contestants: dict[Contestant, Callable[[], float]] = {
        "bare": lambda: _rival("bare_loop", request, sys.executable, threads),
        "ours_fp32": lambda: _ours(request, "fp32", threads),
        "ours_auto": lambda: _ours(request, "auto", threads),
        "ours_compiled": lambda: _ours(request, "auto", threads, "--compile=on"),
        "pythae": lambda: _rival("pythae_vae", request, bench, threads),
        "lightning": lambda: _rival("lightning_vae", request, bench, threads),
    }
    rates: dict[str, float] = {}
    for name in options.contestants:
        rates[name] = contestants[name]()
        say(f"{name}: {rates[name]:,.0f} images a second")
    return rates


def _rival(module: str, request: Request, python: str | Path, threads: int) -> float:
    args = ["-m", f"benchmarks.baselines.{module}", *request.words()]
    result, _ = run_python(args, python=python, threads=threads)
    seconds = [after - before for before, after in pairwise(result["epoch_ends"])]
    rate: float = result["images_per_epoch"] / median(seconds)
    return rate


def _ours(request: Request, precision: str, threads: int, *more: str) -> float:
    settings = {
        "data": f"npz:{request.data}",
        "epochs": request.epochs,
        "batch-size": request.batch_size,
        "num-workers": 1,
        "device": "cpu",
        "precision": precision,
    }
    args = ["vae", *(f"--{k}={v}" for k, v in settings.items()), *more]
    return train_speed(args, threads)


def _figures(rates: dict[str, float]) -> dict[str, float]:
    ratios = {
        figure: rates[ours] / rates[theirs]
        for figure, (ours, theirs) in _RATIOS.items()
        if ours in rates and theirs in rates
    }
    return ratios | {f"images_per_second_{name}": rate for name, rate in rates.items()}


if __name__ == "__main__":
    main()
