"""What the benchmarks share: the data, starting a contestant, and saying what came of it.

Every benchmark compares whole processes, so that nobody's start-up, imports or threads are
another's gain, and ends in one JSON line on stdout: figures and the setting they hold for.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]
DATA_ROOT = Path(os.environ.get("GENPIPE_DATA_ROOT") or "data")
"""Where torchvision's MNIST lies, unless an option says otherwise."""

_LEFT_OUT = (
    *("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "PYTHONPATH"),
    *("GENPIPE_TRACKING_URI", "GENPIPE_STORE"),
)
"""What the user's environment must not decide: which cluster, where results go."""
_NUM_TEST = 1_000
_TAIL = 3_000


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


# -- contestants -----------------------------------------------------------------------------
def run_python(
    args: Sequence[str], *, python: str | Path = sys.executable, threads: int | None = None
) -> tuple[dict[str, Any], float]:
    """Run `python ARGS` at the root: the JSON object on its last line, and its wall seconds.

    `threads` sets OMP_NUM_THREADS, which Ray passes on to its workers; without it, each
    library does what it does by default. Exits with the end of what it said if it fails.
    """
    command = [str(python), *args]
    start = time.perf_counter()
    env = environment(threads)
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = (done.stdout + done.stderr)[-_TAIL:]
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}:\n{said}")
    result: dict[str, Any] = json.loads(lines[-1])
    return result, seconds


def run_genpipe(args: Sequence[str], threads: int | None = None) -> tuple[dict[str, Any], float]:
    """Run `genpipe ARGS --json`: its result, and its wall seconds from start to exit."""
    return run_python(genpipe(args), threads=threads)


def genpipe(args: Sequence[str]) -> list[str]:
    """What follows `python` to run `genpipe ARGS --json`."""
    return ["-m", "pipelines", *args, "--json"]


def environment(threads: int | None = None) -> dict[str, str]:
    """A contestant's environment: the user's, less what would redirect it."""
    found = {k: v for k, v in os.environ.items() if k not in _LEFT_OUT}
    found["PYTHONPATH"] = str(ROOT)  # Ray's workers import the baselines
    found["RAY_USAGE_STATS_ENABLED"] = "0"
    if threads:
        found["OMP_NUM_THREADS"] = str(threads)
    return found


def reports(store: Path) -> list[dict[str, float]]:
    """The metrics of each epoch of the one run in a store, in order."""
    files = sorted(store.glob("runs/*/journal/reports/*.json"))
    return [json.loads(file.read_text())["metrics"] for file in files]


def train_speed(args: Sequence[str], threads: int) -> float:
    """Images a second of `genpipe train ARGS` in the epochs after the first: their median."""
    with scratch() as store:
        run_genpipe(["train", *args, "--store", str(store)], threads)
        rates = [metrics["images_per_second"] for metrics in reports(store)]
    if len(rates) < 2:
        raise SystemExit(f"{len(rates)} epochs were reported: expected at least 2")
    return median(rates[1:])


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for the time of the block."""
    with TemporaryDirectory(prefix="genpipe-benchmark-") as folder:
        yield Path(folder)


# -- data ------------------------------------------------------------------------------------
def mnist_npz(folder: Path, data_root: Path, num_train: int) -> Path:
    """The first MNIST images as an archive of which genpipe trains on `num_train`.

    genpipe takes a sixth of `images` for validation, so there is a fifth more of them.
    """
    import numpy as np
    from torchvision.datasets import MNIST

    try:
        train, test = MNIST(str(data_root)), MNIST(str(data_root), train=False)
    except RuntimeError as error:
        raise SystemExit(f"data_root = '{data_root}': expected torchvision's MNIST") from error
    num = num_train + num_train // 5
    if num > len(train.data):
        raise SystemExit(f"images = {num_train}: expected at most {len(train.data) * 5 // 6}")
    path = folder / "mnist.npz"
    images, test_images = train.data[:num].numpy(), test.data[:_NUM_TEST].numpy()
    np.savez(path, images=images, test_images=test_images)
    return path


# -- what came of it -------------------------------------------------------------------------
def medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each number over repetitions that all have the same names."""
    return {name: median(run[name] for run in runs) for name in runs[0]}


def setting(options: Any = None) -> dict[str, Any]:
    """What the figures hold for: when, on what, with which versions, and which options.

    To be asked before the benchmark begins: its `load` is what others did at that time.
    """
    chosen = {} if options is None else asdict(options)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "cpu": _cpu(),
        "cores": cores(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "ray") if find_spec(name)},
        **_gpu(),
        "commit": _commit(),
        "options": {k: v for k, v in chosen.items() if not isinstance(v, Path)},
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _gpu() -> dict[str, str]:
    """Its name, where there is one."""
    import torch

    return {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def say(text: str) -> None:
    """A line of progress; stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


def finish(name: str, figures: Mapping[str, float], setting: Mapping[str, Any]) -> None:
    """Print the figures: as a table for a person, and as the last line of stdout."""
    from rich.console import Console
    from rich.table import Table

    place = setting.get("gpu") or f"{setting['cores']} cores, {setting['cpu']}"
    say(f"{name}, {setting['date']}, {place}")
    table = Table("figure", "value", box=None)
    for figure, value in figures.items():
        table.add_row(figure, f"{value:.4g}" if abs(value) < 1_000 else f"{value:,.0f}")
    Console(stderr=True).print(table)
    content = {"benchmark": name, "figures": dict(figures), "setting": dict(setting)}
    print(json.dumps(content), flush=True)
