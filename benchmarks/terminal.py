"""How long the command line takes to answer: help, a mistyped flag, and what is recorded.

Each command is timed as a process of its own, from its start to its end, several times after one
that warms the files; the figures are the medians of its wall time and of its CPU time. `genpipe
runs` lists the store of `benchmarks.catalog`: trials that nothing was trained for.

    python -m benchmarks.terminal
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import tyro

from benchmarks.catalog import prepare_store
from benchmarks.figures import ROOT, environment, finish, scratch, setting
from pipelines.store.layout import Store

Command = tuple[int, tuple[str, ...]]
"""An exit code, and the arguments."""
ANSWERS: dict[str, Command] = {
    "help": (0, ("--help",)),
    "help_search": (0, ("search", "vae", "--help")),
    "help_train": (0, ("train", "gan", "--help")),
    "mistyped_command": (2, ("serach", "vae")),
    "mistyped_flag": (2, ("search", "vae", "--trails", "3")),
    "wrong_value": (2, ("search", "vae", "--model.latent-dim", "0")),
}
"""Commands that need no store."""
LISTS: dict[str, Command] = {
    "runs": (0, ("runs",)),
    "runs_where": (0, ("runs", "--kind", "trial", "--where", "metric < 25")),
}
"""Commands that list a store."""


@dataclass(frozen=True)
class Options:
    """Time the answers of the command line."""

    runs: int = 1_000
    """Trials in the store that is listed."""
    repeats: int = 7
    """Calls of each command whose medians are the figures."""
    store: Path | None = None
    """Folder of the store, kept and used again; without it, one that is removed."""


def timed(args: Sequence[str], code: int) -> tuple[float, float]:
    """Return the wall time and the CPU time of `genpipe ARGS`, in seconds."""
    command = [sys.executable, "-m", "pipelines", *args]
    used, start = _cpu_seconds(), time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    wall = time.perf_counter() - start
    if done.returncode != code:
        said = done.stdout + done.stderr
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{said}")
    return wall, _cpu_seconds() - used


def _cpu_seconds() -> float:
    """CPU time of this process's children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    figures: dict[str, float] = {}
    with ExitStack() as stack:
        store = Store.at(options.store or stack.enter_context(scratch()))
        prepare_store(store, options.runs, 10 * options.runs)
        where = ("--store", str(store.root))
        listed = {name: (code, (*args, *where)) for name, (code, args) in LISTS.items()}
        for name, (code, args) in {**ANSWERS, **listed}.items():
            times = [timed(args, code) for _ in range(options.repeats + 1)][1:]
            figures[f"{name}_seconds"] = median(wall for wall, _ in times)
            figures[f"{name}_cpu"] = median(cpu for _, cpu in times)
    finish("terminal", figures, found)


if __name__ == "__main__":
    main()
