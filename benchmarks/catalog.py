"""How long `genpipe runs`, `best` and `status` take in a store with many runs.

The runs are trials of searches whose journals are written here, without training, and delivered to
the store's own database as every run is. Each command is then timed as a process of its own, from
its start to its end, several times; the figure is the median.

    python -m benchmarks.catalog
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import tyro

from benchmarks.figures import finish, run_genpipe, say, scratch, setting
from pipelines.catalog.sync import sync
from pipelines.store.journal import Outcome, RunInfo
from pipelines.store.layout import Store

COMMANDS = {"runs": ("runs",), "best": ("best", "vae"), "status": ("status", "vae-000")}
_TRIALS_OF_A_SEARCH = 100
METRIC = "val/nll/iw8"
_DIGEST = "0123456789abcdef"


@dataclass(frozen=True)
class Options:
    """List and rank the runs of a large store."""

    runs: int = 1_000
    """Trials."""
    points: int = 100_000
    """Points of all trials together."""
    repeats: int = 5
    """Calls of each command whose median is the figure."""
    store: Path | None = None
    """Folder of the store, kept and used again; without it, one that is removed."""


def write_store(store: Store, runs: int, points: int) -> None:
    """Write the journals of so many runs, with so many points in all."""
    names = [f"train/metric_{number}" for number in range(4)]
    names += [METRIC, *(f"val/metric_{number}" for number in range(5))]
    epochs = max(1, round(points / runs / len(names)))
    for number in range(runs):
        search, trial = divmod(number, _TRIALS_OF_A_SEARCH)
        folder = store.search(f"vae-{search:03d}")
        if trial == 0:
            info = recorded_info(folder.name, search, kind="search", search_id=folder.name)
            folder.journal.open(info)
            folder.journal.close(Outcome("completed", 0))
        name = f"{search:03d}-{trial:03d}"
        journal = folder.trial(name).journal
        ids: dict[str, Any] = {"search_id": folder.name, "trial_id": name, "parent": "../.."}
        journal.open(recorded_info(name, number, kind="trial", **ids))
        for epoch in range(1, epochs + 1):
            values = {metric: number + 1.0 / epoch for metric in names}
            journal.write_epoch(epoch, values, {})
        best = {f"best/{metric}": number + 1.0 / epochs for metric in names}
        tags = {"best_epoch": str(epochs)}
        journal.close(Outcome("completed", epochs, {**best, "best/epoch": float(epochs)}, tags))


def prepare_store(store: Store, runs: int, points: int) -> float | None:
    """Write a store with so many runs and points, and deliver them to its database; return how
    many seconds that took. Return None if there is one already."""
    if store.database.exists():
        return None
    say("writing journals")
    write_store(store, runs, points)
    start = time.perf_counter()
    result = sync(store=store.root)
    assert not result.failed, result.failed
    return time.perf_counter() - start


def recorded_info(
    name: str, number: int, changes: Mapping[str, Any] | None = None, **settings: Any
) -> RunInfo:
    """Return the info of a run that nothing was trained for. `changes`: parameters that differ
    from those of the others; `settings`: fields of the info."""
    params = {"data": "digits", "epochs": 10, "seed": number, "batch_size": 128}
    params |= {f"model.setting_{i}": i for i in range(12)}
    params |= {f"optim.setting_{i}": i for i in range(6)}
    params |= changes or {}
    tags = {"family": "vae", "seed": str(number), "data_digest": _DIGEST, "metric": METRIC}
    tags |= {
        "mode": "min",
        "rerun": f"genpipe train vae --seed {number}",
        "features": "lenet-digits",
    }
    tags |= {f"version.{package}": "1.2.3" for package in ("python", "torch", "ray", "mlflow")}
    dataset = {"name": "digits", "digest": _DIGEST, "shape": [1, 8, 8], "num_train": 1198}
    info: dict[str, Any] = {"params": params, "tags": tags, "dataset": dataset, **settings}
    return RunInfo(name=name, experiment="vae-digits", **info)


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    with ExitStack() as stack:
        folder = options.store or stack.enter_context(scratch())
        store, figures = Store.at(folder), dict[str, float]()
        if seconds := prepare_store(store, options.runs, options.points):
            figures["deliver_seconds"] = seconds
        for name, command in COMMANDS.items():
            args = [*command, "--store", str(store.root)]
            times = [run_genpipe(args)[1] for _ in range(options.repeats + 1)]
            figures[f"{name}_seconds"] = median(times[1:])
    finish("catalog", figures, found)


if __name__ == "__main__":
    main()
