"""How long a search of small models takes, start-up included, in several ways side by side.

A search of a model that trains in seconds is mostly overhead, and that is what this is about:
48 trials of the default VAE, two epochs of 10,000 MNIST images each, every trial to its end.

    python -m benchmarks.search_throughput --data-root DIR [--ideal]

The ways, each a process of its own, timed from start to exit, as many trials at once as cores:
`recipe`, Ray's documented recipe; `function`, a Tune function trainable a trial; `ours`.
`--ideal` adds `bare`, a loop over the configs in one process, of which only the loops are
timed, and `ours_fp32`. Of all ways only ours records the search in MLflow, with pictures and
Fréchet distances.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from benchmarks.baselines.request import Request
from benchmarks.figures import (
    DATA_ROOT,
    cores,
    finish,
    medians,
    mnist_npz,
    run_genpipe,
    run_python,
    say,
    scratch,
    setting,
)

Way = Literal["recipe", "function", "ours"]


@dataclass(frozen=True)
class Options:
    """Compare ways to search small models."""

    trials: int = 48
    """Configs."""
    epochs: int = 2
    """Epochs of each."""
    images: int = 10_000
    """Training images; a fifth as many more validate."""
    batch_size: int = 128
    recipe_trials: int | None = None
    """Configs of the recipe, if fewer: seconds a trial are compared."""
    repeats: int = 1
    """Runs of each way, in turn; the figures are of their medians."""
    ways: tuple[Way, ...] = ("recipe", "function", "ours")
    """What to run."""
    fuse: int | None = None
    """Members of a population, of ours; by default as many as genpipe takes."""
    ideal: bool = False
    """Compare with a bare loop over the configs, too."""
    data_root: Path = DATA_ROOT
    """Where torchvision's MNIST lies; the environment's GENPIPE_DATA_ROOT is the default."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    with scratch() as folder:
        data = mnist_npz(folder, options.data_root, options.images)
        request = Request(data, options.epochs, options.batch_size, options.trials, cores())
        runs = [_measure(options, request) for _ in range(options.repeats)]
    finish("search_throughput", _figures(options, medians(runs)), found)


def _measure(options: Options, request: Request) -> dict[str, float]:
    """Seconds of each way, once."""
    fewer = replace(request, trials=options.recipe_trials or options.trials)
    ways: dict[str, Callable[[], float]] = {
        "recipe": lambda: _baseline("ray_recipe", fewer),
        "function": lambda: _baseline("tune_function", request),
        "ours": lambda: _ours(request, options),
    }
    ways = {name: way for name, way in ways.items() if name in options.ways}
    if options.ideal:
        ways["ours"] = lambda: _ours(request, options)
        ways["ours_fp32"] = lambda: _ours(request, options, "fp32")
        ways["bare"] = lambda: _bare(request)
    seconds = {}
    for name, way in ways.items():
        seconds[name] = way()
        say(f"{name}: {seconds[name]:.1f} s")
    return seconds


def _baseline(module: str, request: Request) -> float:
    args = ["-m", f"benchmarks.baselines.{module}", *request.words()]
    result, seconds = run_python(args)
    if result["errors"] or result["trials"] != request.trials:
        raise SystemExit(f"{module}: {result}: expected {request.trials} trials without error")
    return seconds


def _bare(request: Request) -> float:
    result, _ = run_python(["-m", "benchmarks.baselines.bare_loop", *request.words()])
    return float(result["seconds"])


def _ours(request: Request, options: Options, precision: str | None = None) -> float:
    settings = {
        "data": f"npz:{request.data}",
        "epochs": request.epochs,
        "batch-size": request.batch_size,
        "trials": request.trials,
        "grace-period": 1,
        "scheduler": "fifo",
        "searcher": "random",
    }
    with scratch() as store:
        args = ["search", "vae", f"--store={store}"]
        args += [f"--{name}={value}" for name, value in settings.items()]
        args += [f"--precision={precision}"] if precision else []
        args += [f"--fuse={options.fuse}"] if options.fuse else []
        result, seconds = run_genpipe(args)
    endings = [trial["outcome"] for trial in result["ranking"]]
    if endings != ["completed"] * request.trials:
        raise SystemExit(f"ours: {endings}: expected {request.trials} times 'completed'")
    return seconds


def _figures(options: Options, seconds: dict[str, float]) -> dict[str, float]:
    num = {name: options.trials for name in seconds}
    num["recipe"] = options.recipe_trials or options.trials
    a_trial = {name: total / num[name] for name, total in seconds.items()}
    rivals = {"recipe": "over_recipe", "function": "over_function_trainable"}
    figures = {
        figure: a_trial[name] / a_trial["ours"]
        for name, figure in rivals.items()
        if name in a_trial and "ours" in a_trial
    }
    if "bare" in seconds:
        figures["of_ideal_fp32"] = seconds["bare"] / seconds["ours_fp32"]
        figures["of_ideal_auto"] = seconds["bare"] / seconds["ours"]
    if "ours" in a_trial:
        figures["trials_an_hour_ours"] = 3600 / a_trial["ours"]
    return figures | {f"seconds_a_trial_{name}": value for name, value in a_trial.items()}


if __name__ == "__main__":
    main()
