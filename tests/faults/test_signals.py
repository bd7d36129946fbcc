"""Commands that are asked to end, by Ctrl-C or SIGTERM: they end in order, and are resumed."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from support.pipeline import (
    ROOT,
    SMALL,
    check_recorded,
    client,
    kill,
    recorded_epochs,
    run_process,
    trial_metrics,
    wait_until,
)

SECONDS = 60
"""In which a command ends where other suites take the cores. `benchmarks.overheads` prints what it
takes alone."""
DATA = (*SMALL, "--batch-size", "32", "--features", "pca")
SEARCH = (
    *("search", "vae", *DATA, "--searcher", "random", "--scheduler", "fifo", "--epochs", "40"),
)


@pytest.fixture
def store(tmp_path: Path, mlflow_database: Path) -> Path:
    """A store with MLflow's tables."""
    store = tmp_path / "runs"
    store.mkdir()
    shutil.copy(mlflow_database, store / "mlflow.db")
    return store


class Command:
    """A command in a process group of its own, as a shell starts it. Its stderr goes to `log`."""

    def __init__(self, log: Path, *args: str) -> None:
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipelines", *args],
            stdout=subprocess.DEVNULL,
            stderr=log.open("w"),
            cwd=ROOT,
            start_new_session=True,
        )

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds, which it must while the command runs."""

        def holds() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return condition()

        wait_until(holds, 300)

    def kill(self) -> None:
        """Kill what is left of the command, if a check failed."""
        if self.process.poll() is None:
            kill(self.process)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def signal(self, number: signal.Signals, *, group: bool = False) -> list[str]:
        """Send a signal, and wait for the end; return what was said after it, line by line. No
        process is left over. `group`: to all processes, as a terminal does."""
        before, children = len(self.log.read_text()), self.children()
        (os.killpg if group else os.kill)(self.process.pid, number)
        start = time.monotonic()
        self.process.wait(timeout=120)
        seconds = time.monotonic() - start
        said = self.log.read_text()[before:]
        assert self.process.returncode == 128 + number, said
        assert "SIGTERM received" not in said and "Traceback" not in said, said
        assert seconds < SECONDS, said
        _, alive = psutil.wait_procs(children, timeout=20)
        assert not alive
        return said.strip().splitlines()


Start = Callable[..., Command]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a command, which is killed at the end if it has not ended."""
    started: list[Command] = []

    def run(*args: str) -> Command:
        started.append(Command(tmp_path / "log", *args))
        return started[-1]

    yield run
    for each in started:
        each.kill()


def resumed(lines: list[str]) -> list[str]:
    """Return the arguments of the command that was named last."""
    line = lines[-1]
    assert line.startswith("warning: interrupted: `genpipe "), lines
    return line.split("`")[1].split()[1:]


def statuses(store: Path) -> set[str]:
    """Return the statuses of all runs that MLflow holds."""
    mlflow = client(store)
    ids = [each.experiment_id for each in mlflow.search_experiments()]
    return {run.info.status for run in mlflow.search_runs(ids)}


def test_a_search_that_is_ended_and_resumed_is_what_it_is_undisturbed(
    store: Path, start: Start, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    # Else each of the two searches would measure how trials are trained.
    search = [*SEARCH, "--trials", "4", "--execution", "in_turn", "--store", str(store)]
    command = start(*search)
    command.wait_until(lambda: recorded_epochs(store, 3) > 1)
    said = command.signal(signal.SIGTERM, group=True)
    assert statuses(store) - {"FINISHED"} == {"KILLED"}  # a trial may have ended before
    assert "SIGTERM: stopping in order" in said[0]
    result = run_process(resumed(said), log)
    assert {trial["outcome"] for trial in result["ranking"]} == {"completed"}
    check_recorded(store, result)
    other = tmp_path / "undisturbed"
    run_process([*search[:-1], str(other)], log)
    assert trial_metrics(store) == trial_metrics(other)


def test_trials_that_are_not_fused_while_mlflow_does_not_answer(
    store: Path, start: Start, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    command = start(*SEARCH, "--trials", "2", "--fuse", "off", "--store", str(store))
    command.wait_until(lambda: recorded_epochs(store, 2) > 0)
    with closing(sqlite3.connect(store / "mlflow.db", 30, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        said = command.signal(signal.SIGINT, group=True)
    assert any("lacks some results; `genpipe runs` delivers them" in line for line in said), said
    assert "--fuse" not in resumed(said) and resumed(said)[:3] == ["search", "vae", "--resume"]
    run_process(["sync", "--store", str(store)], log)
    assert statuses(store) == {"KILLED"}


def test_a_run_and_its_confirmation(store: Path, start: Start, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def epochs(number: int) -> int:
        return len(list(store.glob(f"runs/*/journal/reports/{number:06d}.json")))

    run = ["train", "vae", *DATA, "--epochs", "40", "--store", str(store)]
    command = start(*run)
    command.wait_until(lambda: any("raylet" in each.name() for each in command.children()))
    assert command.signal(signal.SIGTERM)[-1] == "interrupted"  # nothing has begun
    command = start(*run)
    command.wait_until(lambda: epochs(2) > 0)
    said = command.signal(signal.SIGTERM)
    assert statuses(store) == {"KILLED"}
    result = run_process(resumed(said), log)
    assert result["outcome"] == "completed" and result["epoch"] == 40
    assert statuses(store) == {"FINISHED"}

    command = start("confirm", result["name"], "--seeds", "2", "--store", str(store))
    command.wait_until(lambda: recorded_epochs(store, 2) > 0)
    said = command.signal(signal.SIGTERM)
    assert resumed(said)[0] == "confirm" and statuses(store) == {"FINISHED", "KILLED"}

    command = start(*resumed(said))
    command.wait_until(lambda: "trials fused" in log.read_text())
    children = command.children()
    command.process.send_signal(signal.SIGINT)
    command.wait_until(lambda: "SIGINT: stopping in order" in log.read_text())
    command.process.send_signal(signal.SIGTERM)
    assert command.process.wait(timeout=60) == 143
    # Ray's agents, and workers that are starting, look for their raylet, and then ask its GCS for
    # up to a minute.
    _, alive = psutil.wait_procs(children, timeout=10)
    for each in alive:
        with suppress(psutil.NoSuchProcess):
            is_starting = any("default_worker.py" in part for part in each.cmdline())
            assert each.name().endswith("Agent") or is_starting, each
            each.kill()
