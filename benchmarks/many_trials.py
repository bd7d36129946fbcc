"""Whether a search of a thousand trials holds: its time, its memory, and whether that grows.

ASHA on scikit-learn's digits with the full history in MLflow on SQLite. Memory is that of the
command and all processes below it, Ray's too, each page counted once (PSS). It is sampled from
outside, and how many trials have ended is seen from their journals. The driver's cost of a trial
is the CPU time, user and system, of the command's own process.

    python -m benchmarks.many_trials
    python -m benchmarks.many_trials --trials 5000    # whether the driver's cost of a trial grows
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import psutil
import tyro

from benchmarks.figures import ROOT, environment, finish, genpipe, say, scratch, setting

_SAY_EVERY, _GOODBYE = 60.0, 60.0
_AROUND = 5
"""Samples whose median is the memory at a count of trials."""
_LIGHT = 50
"""Sampling waits this many times as long as a sample took: some 15 ms of kernel time for each
process, which would slow the search if it were done as often as one likes."""
_COUNTS, _WIDEST = (200, 1_000, 5_000), 500
"""Trials that have ended when the driver's cost of a trial is measured: the mean over the trials
before, half as many, or `_WIDEST`."""


@dataclass(frozen=True)
class Options:
    """Run one long search and watch its memory."""

    trials: int = 1_000
    """Configs."""
    epochs: int = 20
    """Epochs of a trial that is not stopped."""
    grace_period: int = 1
    """Epochs that ASHA gives every trial; 1 is Ray's default."""
    every: float = 2.0
    """Seconds between samples, at least."""
    store: Path | None = None
    """Folder of the results, kept; without it, one that is removed."""


class Sample(NamedTuple):
    """The search at one moment."""

    ended: int
    """Trials that have ended."""
    mib: float
    """Memory of all its processes."""
    driver_seconds: float
    """CPU time of the command's own process."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    with ExitStack() as stack:
        store = options.store or stack.enter_context(scratch())
        start = time.perf_counter()
        samples, busy = _search(options, store.absolute())
        seconds = time.perf_counter() - start
    say(f"{len(samples)} samples took {busy / seconds:.1%} of one core")
    finish("many_trials", _figures(options, samples, seconds), found)


def _search(options: Options, store: Path) -> tuple[list[Sample], float]:
    """Run the search to its end: the samples, and the seconds that taking them took."""
    args = ["search", "vae", "--data=digits", "--scheduler=asha", f"--store={store}"]
    args += [f"--trials={options.trials}", f"--epochs={options.epochs}"]
    args += [f"--grace-period={options.grace_period}"]
    store.mkdir(parents=True, exist_ok=True)
    log = store / "search.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *genpipe(args)],
            cwd=ROOT,
            env=environment(),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            found = _watch(process, store, options.every)
        finally:
            _stop(process)
    if process.returncode:
        said = log.read_text()[-3_000:]
        raise SystemExit(f"the search ended with {process.returncode}:\n{said}")
    return found


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a search that this benchmark leaves early, if a Ctrl-C has not: it stops its Ray."""
    try:
        process.wait(_GOODBYE)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait()


def _watch(
    process: subprocess.Popen[bytes], store: Path, every: float
) -> tuple[list[Sample], float]:
    samples: list[Sample] = []
    busy, said = 0.0, time.perf_counter()
    while process.poll() is None:
        start = time.perf_counter()
        sample = Sample(_num_ended(store), _tree_mib(process.pid), _cpu_seconds(process.pid))
        if sample.mib:  # nothing is left of a process that ends meanwhile
            samples.append(sample)
        now = time.perf_counter()
        busy += now - start
        if now - said > _SAY_EVERY:
            said = now
            say(f"{sample.ended} trials ended, {sample.mib:,.0f} MiB")
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(every, _LIGHT * (now - start)))
    return samples, busy


def _num_ended(store: Path) -> int:
    return sum(1 for _ in store.glob("searches/*/trials/*/journal/outcome.json"))


def _tree_mib(root: int) -> float:
    """Memory of a process and all below it, each page shared out among those who map it."""
    return sum(_pss_kib(pid) for pid in _tree(root)) / 1024


def _tree(root: int) -> set[int]:
    """A process and all below it."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended
        parents[int(stat.parent.name)] = int(after_name[1])
    tree, size = {root}, 0
    while len(tree) > size:
        size = len(tree)
        tree |= {pid for pid, parent in parents.items() if parent in tree}
    return tree


def _pss_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process alone, user and system; 0 if it has ended."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def driver_costs(samples: Sequence[Sample], trials: int) -> dict[str, float]:
    """Return the driver's CPU milliseconds a trial by the time that so many trials had ended, and
    the largest over the smallest. What it does after the last trial does not count."""
    ended, first = np.unique([s.ended for s in samples if s.ended < trials], return_index=True)
    seconds = [samples[i].driver_seconds for i in first]
    figures: dict[str, float] = {}
    for count in _COUNTS:
        start = count - min(count // 2, _WIDEST)
        if count > trials or not len(ended) or ended[-1] <= start:
            continue
        end = min(count, ended[-1])
        cost = np.diff(np.interp([start, end], ended, seconds))[0] / (end - start)
        figures[f"driver_ms_a_trial_{count}"] = 1_000 * float(cost)
    if len(figures) > 1:
        figures["driver_cost_growth"] = max(figures.values()) / min(figures.values())
    return figures


def _figures(options: Options, samples: list[Sample], seconds: float) -> dict[str, float]:
    early = [s.mib for s in samples if s.ended >= options.trials // 5][:_AROUND]
    late = [s.mib for s in samples if s.ended < options.trials][-_AROUND:]
    figures = {
        "minutes": seconds / 60,
        "trials_per_minute": options.trials / (seconds / 60),
        "peak_gib": max(sample.mib for sample in samples) / 1024,
    }
    if early and late:
        figures["growth_mib"] = median(late) - median(early)
    return figures | driver_costs(samples, options.trials)


if __name__ == "__main__":
    main()
