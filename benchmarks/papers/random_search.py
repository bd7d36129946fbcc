"""A random search of each family on MNIST, and its best config with other seeds: the design of
Lucic et al. 2018 (compare_gan v1: 100 random configs of each model, the best with 50 seeds).

All families are ranked by the same metric, the Fréchet distance of 2,048 samples to validation
images in the features of MNIST's classifier. It is no Inception FID: the published table cannot
stand beside this one. Trials that do badly are stopped early, which the published design does not.
The budgets are those of a CPU.

    python -m benchmarks.papers.random_search --data-root DIR --store runs/random_search

A search that was stopped goes on with the same command, and one that has ended is not repeated.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.figures import DATA_ROOT, ROOT, environment, finish, genpipe, say, setting

METRIC = "val/fd"
ARGS: dict[str, tuple[str, ...]] = {
    "autoencoder": ("--epochs", "8", "--grace-period", "2"),
    "vae": ("--epochs", "8", "--grace-period", "2"),
    "gan": (
        *("--epochs", "3", "--grace-period", "1"),
        *("--model.channels", "8", "--batch-size", "64"),
    ),
}
"""Of each family, what differs from its defaults: a CPU's budget. The first two are fully
connected, the GAN is a quarter as wide as its default."""


@dataclass(frozen=True)
class Options:
    """Search each family, confirm its best config."""

    families: tuple[str, ...] = tuple(ARGS)
    """Families, in this order."""
    trials: int = 100
    """Configs of each family."""
    seeds: int = 50
    """Seeds that the best config is trained again with."""
    data: str = "mnist"
    """Data set."""
    store: Path = Path("runs/random_search")
    """Where the searches are recorded; also their results, `FAMILY.json`."""
    data_root: Path = DATA_ROOT
    """Where torchvision's MNIST lies; the environment's GENPIPE_DATA_ROOT is the default."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    options.store.mkdir(parents=True, exist_ok=True)
    results = {family: _result(family, options) for family in options.families}
    figures = {
        f"{family}_{name}": value
        for family, result in results.items()
        for name, value in _figures(result).items()
    }
    say(_table(results))
    finish("papers.random_search", figures, found)


def _result(family: str, options: Options) -> dict[str, Any]:
    """The search's answer, and the seconds that it took, over all its starts."""
    kept, clock = (options.store / f"{family}.{ending}" for ending in ("json", "seconds"))
    if not kept.is_file():
        before, start = float(clock.read_text()) if clock.is_file() else 0.0, time.monotonic()
        try:
            answer = _search(family, options)
        finally:
            seconds = before + time.monotonic() - start
            clock.write_text(f"{seconds}\n")
        kept.write_text(json.dumps(answer | {"seconds": seconds}) + "\n")
    result: dict[str, Any] = json.loads(kept.read_text())
    return result


def _search(family: str, options: Options) -> dict[str, Any]:
    """Run the search, or go on with the one that is in the store."""
    args = ["search", family, "--store", str(options.store), "--data-root", str(options.data_root)]
    begun = sorted(options.store.glob(f"searches/{family}-2*[0-9a-f]/config.json"))
    begun = [path for path in begun if not path.parent.name.endswith("-seeds")]
    if begun:
        args += ["--resume", begun[-1].parent.name]
    else:
        args += ["--trials", str(options.trials), "--confirm", "1", "--seeds", str(options.seeds)]
        args += ["--data", options.data, "--searcher", "random", "--metric", METRIC]
        args += ARGS[family]
    command = [sys.executable, *genpipe(args)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _figures(result: Mapping[str, Any]) -> dict[str, float]:
    """Of a family: the best trial's distance, its config's over seeds, and what they took."""
    best = result["ranking"][0]
    over_seeds = best["confirmed"]
    epochs = sum(trial["epochs"] for trial in result["ranking"])
    names = ("mean", "std", "best", "worst", "seeds")
    return {
        "searched": best["value"],
        **{name: over_seeds[name] for name in names},
        "trials": len(result["ranking"]),
        "trial_epochs": epochs,
        "minutes": result["seconds"] / 60,
    }


def _table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """In Markdown, as the documentation has it."""
    rows = [
        "| family | best of the search | over seeds | worst | trials | minutes | config |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for family, result in results.items():
        f = _figures(result)
        config = ", ".join(f"{k} {_short(v)}" for k, v in result["ranking"][0]["config"].items())
        rows.append(
            f"| {family} | {f['searched']:.2f} | {f['mean']:.2f} ± {f['std']:.2f} | "
            f"{f['worst']:.2f} | {f['trials']:.0f} | {f['minutes']:.0f} | {config} |"
        )
    return "\n".join(rows)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
