"""What genpipe takes beside training: checkpoints, tracking, starting again, ending.

    python -m benchmarks.overheads

`checkpoint`: an MLP VAE of ten million parameters on MNIST, in this process, without Ray. Of an
epoch's time, the share in which its checkpoint is written, made durable (fsync) and older ones are
removed; the default interval is an epoch. `checkpoint_percent` is the median over epochs.

`tracking`: the default VAE on MNIST by `genpipe train`, recorded at an MLflow server.
`tracking_percent` is the CPU time of the thread that delivers over the CPU time of the worker that
trains, from the first epoch to the last; in `tracking_stopped_percent` the server is stopped after
the first epoch.

`recovery`: the fused worker of a search is killed. `recovery_seconds` is the time to the next
recorded epoch, `recovery_seconds_ray` the time in which a bare Ray actor that imports torch
replies again after a kill. `stop_seconds` is the time from a SIGTERM to the end of the command.

`resume`: a search is killed as a whole and resumed. `resume_seconds` is the time from the start of
the process to the first new epoch, `resume_seconds_ray` the time in which a bare Ray starts and an
actor that imports torch replies. `close_seconds` is the time from the last epoch of the search to
the end of the process, `close_seconds_ray` that of `ray.shutdown`; `ended_seconds` is how long it
takes to resume a search that has ended. `…_over_ray` is the difference of runs that followed each
other. `…_cpu` is the CPU time of all processes in place of the wall's, which says more on a
machine that is busy.

The seconds are medians of `--repeats`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from threading import Event, Thread, enumerate
from typing import TYPE_CHECKING, Any, Literal

import psutil
import tyro

from benchmarks.figures import (
    DATA_ROOT,
    ROOT,
    environment,
    finish,
    genpipe,
    say,
    scratch,
    setting,
)
from benchmarks.processes import answers, free_ports, kill_tree, title, tree, wait_for

if TYPE_CHECKING:
    from pipelines.config.run import Train
    from pipelines.training.loop import EpochOutputs, TrialState

Part = Literal["checkpoint", "tracking", "recovery", "resume"]
_SAMPLE_SECONDS = 0.1
_LIMIT_SECONDS = 1_800.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Options:
    """Measure what checkpoints, tracking, resuming and ending take."""

    parts: tuple[Part, ...] = ("checkpoint", "tracking", "recovery", "resume")
    """What to measure."""
    trials: int = 40
    """Trials of the search that is resumed and closed."""
    epochs: int = 4
    """Epochs of the large VAE; the first does not count."""
    tracked_epochs: int = 20
    """Epochs of each training that is tracked; the first does not count."""
    width: int = 2_048
    """Units of the two hidden layers, on either side, of the large VAE."""
    repeats: int = 3
    """Kills, resumed searches, and searches that have ended."""
    data_root: Path = DATA_ROOT
    """Where torchvision's MNIST lies; the environment's GENPIPE_DATA_ROOT is the default."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    parts: dict[Part, Callable[[Options, Path], dict[str, float]]] = {
        "resume": _resume,
        "recovery": _recovery,
        "tracking": _tracking,
        "checkpoint": _checkpoint,
    }
    figures: dict[str, float] = {}
    for name, measure in parts.items():
        if name in options.parts:
            say(f"{name}, at a load of {os.getloadavg()[0]:.1f}")
            with scratch() as folder:
                figures |= measure(options, folder)
            say(", ".join(f"{key} {value:.3g}" for key, value in figures.items()))
    finish("overheads", figures, found)


# -- checkpoints -----------------------------------------------------------------------------
def _checkpoint(options: Options, folder: Path) -> dict[str, float]:
    """Train a large VAE as a fused worker does, and time what its checkpoints take."""
    from pipelines.config.run import defaults
    from pipelines.config.search import Search
    from pipelines.config.serialization import to_dict, with_settings
    from pipelines.training.payload import SharedDataset, TrainingPayload
    from pipelines.training.preflight import preflight
    from pipelines.tuning.fused.marks import WorkerMarks
    from pipelines.tuning.fused.requests import TrialRequest
    from pipelines.tuning.fused.resident import ResidentTrials

    chosen = {
        **_on_mnist(options, folder),
        "epochs": options.epochs,
        "precision": "fp32",
        "execution": "in_turn",
        "grace_period": 1,
        "model": {"arch": "mlp", "hidden": (options.width, options.width)},
    }
    context = preflight(with_settings(defaults(Search, "vae"), chosen))
    parts = context.dataset.part("train"), context.dataset.part("validation")
    dataset = SharedDataset(*parts, context.dataset.num_classes, context.extractor)
    (folder / "workers").mkdir()
    content, where = to_dict(context.run), str(folder / "search")
    payload = TrainingPayload(content, where, (None,), False, None)  # type: ignore[arg-type]
    trials = ResidentTrials(payload, dataset, 1, 1, WorkerMarks(folder / "workers"))
    outputs = trials.outputs = _TimedOutputs(trials.outputs)
    shares, ends = [], [time.perf_counter()]
    for epoch in range(options.epochs):
        reply = Future[Any]()
        trials.run_epochs({reply: TrialRequest("large", {}, epoch or None)})
        reply.result(timeout=0)
        ends.append(time.perf_counter())
        shares.append(outputs.seconds[-1] / (ends[-1] - ends[-2]))
        say(f"epoch {ends[-1] - ends[-2]:.1f} s, checkpoint {outputs.seconds[-1]:.2f} s")
    return {
        "checkpoint_percent": 100 * median(shares[1:]),
        "checkpoint_seconds": median(outputs.seconds[1:]),
        "checkpoint_mib": outputs.mib,
        "checkpoint_million_parameters": outputs.parameters / 1e6,
    }


@dataclass
class _TimedOutputs:
    """Outputs of an epoch that time what they save."""

    inner: EpochOutputs
    seconds: list[float] = field(default_factory=list)
    mib: float = 0.0
    parameters: int = 0
    writes: bool = True

    def extra_metrics(self, trial: TrialState) -> dict[str, float]:
        return self.inner.extra_metrics(trial)

    def draws_pictures(self, trial: TrialState, metrics: dict[str, float]) -> bool:
        return self.inner.draws_pictures(trial, metrics)

    def save(self, trial: TrialState, report: Mapping[str, float], *, diverged: bool) -> None:
        start = time.perf_counter()
        self.inner.save(trial, report, diverged=diverged)
        self.seconds.append(time.perf_counter() - start)
        networks = trial.learner.networks.values()
        self.parameters = sum(p.numel() for network in networks for p in network.parameters())
        newest = max(trial.folder.glob("checkpoint_*"))
        self.mib = sum(file.stat().st_size for file in newest.iterdir()) / 2**20


def _on_mnist(options: Options, store: Path) -> dict[str, Any]:
    """Return the settings of a training on MNIST that is not compared by a trained classifier,
    because that takes minutes."""
    places = {"store": str(store / "store"), "data_root": str(options.data_root)}
    return {**places, "data": "mnist", "features": "pca"}


# -- tracking --------------------------------------------------------------------------------
def _tracking(options: Options, folder: Path) -> dict[str, float]:
    """Train with an MLflow server, and with one that is stopped after the first epoch."""
    figures: dict[str, float] = {}
    for name, stopped in (("tracking", False), ("tracking_stopped", True)):
        with _mlflow_server(folder / name) as (server, uri), get_context("spawn").Pool(1) as pool:
            settings = {**_on_mnist(options, folder / name), "tracking_uri": uri}
            settings["epochs"] = options.tracked_epochs
            shares = pool.apply(_train_watched, (settings, server.pid if stopped else None))
        figures |= {f"{name}_percent": shares[0], f"{name}_percent_of_wall": shares[1]}
    return figures


@contextmanager
def _mlflow_server(folder: Path) -> Iterator[tuple[psutil.Popen, str]]:
    (port,) = free_ports(1)
    folder.mkdir()
    command = [sys.executable, "-m", "mlflow", "server", "--workers=1", f"--port={port}"]
    command += [f"--backend-store-uri=sqlite:///{folder}/mlflow.db"]
    command += [f"--artifacts-destination={folder}/artifacts"]
    env = {**environment(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("w") as log:
        server = psutil.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
    try:
        uri = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(f"{uri}/health"), _LIMIT_SECONDS, "no MLflow server")
        yield server, uri
    finally:
        kill_tree(server.pid)


def _train_watched(settings: Mapping[str, Any], server: int | None) -> tuple[float, float]:
    """Train in this process; return the CPU time of the thread that delivers, in percent of that
    of the worker that trains, and of the wall's. `server`: is killed after the first epoch."""
    from pipelines.config.run import Train, defaults
    from pipelines.config.serialization import with_settings
    from pipelines.training.run import train_config

    run: Train = with_settings(defaults(Train, "vae"), settings)
    samples: list[tuple[float, float, float]] = []
    over = Event()
    watcher = Thread(target=_watch, args=(run, samples, over, server), daemon=True)
    watcher.start()
    train_config(run)
    over.set()
    watcher.join()
    first, *_, last = samples
    wall, delivery, training = (b - a for a, b in zip(first, last, strict=True))
    say(f"{delivery:.2f} s of CPU delivered, {training:.1f} s trained, {wall:.1f} s passed")
    return 100 * delivery / training, 100 * delivery / wall


def _watch(
    run: Train, samples: list[tuple[float, float, float]], over: Event, server: int | None
) -> None:
    """Sample the time, the CPU time of the thread that delivers and that of the worker that
    trains, from the first epoch to the last."""
    pattern = "runs/*/journal/reports/*.json"
    while not over.wait(_SAMPLE_SECONDS):
        recorded = sum(1 for _ in Path(run.store).glob(pattern))
        if not recorded:
            continue
        if server is not None:
            kill_tree(server)
            server = None
        workers = [p for p in tree(os.getpid()) if "RayTrainWorker" in title(p)]
        with suppress(psutil.NoSuchProcess):
            trained = sum(sum(p.cpu_times()[:2]) for p in workers)
            if workers:
                samples.append((time.perf_counter(), _thread_seconds("tracking"), trained))
        if recorded >= run.epochs:
            return


def _thread_seconds(name: str) -> float:
    """Return the CPU time of a thread of this process."""
    (thread,) = (each for each in enumerate() if each.name == name)
    text = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / _TICKS


# -- recovery --------------------------------------------------------------------------------
def _recovery(options: Options, folder: Path) -> dict[str, float]:
    """Kill a search's fused worker, several times; a bare actor beside it."""
    args = ["search", "vae", "--data=digits", f"--store={folder}", "--trials=1"]
    args += ["--epochs=100000", "--scheduler=fifo", "--max-failures=100"]
    own, ray = [], []
    search = _Command(genpipe(args), folder / "log")
    try:
        search.follow(lambda: _num_epochs(folder) > 2)
        for _ in range(options.repeats):
            for process in tree(search.process.pid):
                if title(process).startswith("ray::FusedWorker"):
                    process.kill()
            killed, before = time.perf_counter(), _num_epochs(folder)
            search.follow(lambda before=before: _num_epochs(folder) > before)  # type: ignore[misc]
            own.append(time.perf_counter() - killed)
            done = _num_epochs(folder)
            search.follow(lambda done=done: _num_epochs(folder) > done + 2)  # type: ignore[misc]
        asked = time.perf_counter()
        search.process.terminate()
        code = search.process.wait(_LIMIT_SECONDS)
        stop = time.perf_counter() - asked
        if code != 128 + signal.SIGTERM:
            raise SystemExit(f"a search that was asked to end ended with {code}")
    finally:
        kill_tree(search.process.pid)
    for _ in range(options.repeats):
        ray.append(_bare_ray(folder)["restart_seconds"])
    say(f"recovery {_listed(own)}; Ray's own {_listed(ray)}")
    return {
        "recovery_seconds": median(own),
        "recovery_seconds_ray": median(ray),
        "stop_seconds": stop,
    }


# -- resuming and closing --------------------------------------------------------------------
def _resume(options: Options, folder: Path) -> dict[str, float]:
    """Kill a search, resume it again and again, let it end, and resume it once it has ended."""
    args = ["search", "vae", f"--store={folder}"]
    whole = [*args, "--data=digits", f"--trials={options.trials}", "--epochs=20"]
    _killed_after(genpipe(whole), folder, 60)
    (search,) = (folder / "searches").iterdir()
    resume = genpipe([*args, f"--resume={search.name}"])
    times: dict[str, list[float]] = {}

    def note(**values: float) -> None:
        for name, value in values.items():
            times.setdefault(name, []).append(value)
        say(", ".join(f"{name} {value:.1f}" for name, value in values.items()))

    for number in range(options.repeats):
        bare = _bare_ray(folder)
        note(resume_seconds_ray=bare["ready_seconds"], resume_cpu_ray=bare["ready_cpu"])
        note(close_seconds_ray=bare["shutdown_seconds"])
        command, before = _Command(resume, folder / "log"), _num_epochs(folder)
        seconds, cpu = command.follow(lambda before=before: _num_epochs(folder) > before)  # type: ignore[misc]
        note(resume_seconds=seconds, resume_cpu=cpu)
        if number < options.repeats - 1:
            kill_tree(command.process.pid)
    command.follow(lambda: False)
    note(close_seconds=time.time() - _newest_epoch(folder))
    for _ in range(options.repeats):
        seconds, cpu = _Command(resume, folder / "log").follow(lambda: False)
        note(ended_seconds=seconds, ended_cpu=cpu)
    figures = {name: median(values) for name, values in times.items()}
    for name in ("resume_seconds", "resume_cpu", "close_seconds"):
        pairs = zip(times[name], times[f"{name}_ray"], strict=False)
        figures[f"{name}_over_ray"] = median(own - ray for own, ray in pairs)
    return figures


def _killed_after(arguments: list[str], store: Path, epochs: int) -> None:
    """Start a command, and kill it and all its processes after so many recorded epochs."""
    command = _Command(arguments, store / "log")
    command.follow(lambda: _num_epochs(store) >= epochs)
    kill_tree(command.process.pid)


def _bare_ray(folder: Path) -> dict[str, float]:
    """Return what Ray's own part takes."""
    ready = folder / "ready"
    ready.unlink(missing_ok=True)
    arguments = ["-m", "benchmarks.baselines.ray_start", f"--ready={ready}"]
    with (folder / "bare.out").open("w") as out:
        command = _Command(arguments, folder / "log", out)
        seconds, cpu = command.follow(ready.exists)
        command.follow(lambda: False)
    ended: dict[str, float] = json.loads((folder / "bare.out").read_text().splitlines()[-1])
    return {"ready_seconds": seconds, "ready_cpu": cpu, **ended}


class _Command:
    """A command that was started, and the CPU time of its processes."""

    def __init__(self, arguments: list[str], log: Path, out: Any = subprocess.DEVNULL) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log, self.cpu = log, dict[int, float]()
        self.start = time.perf_counter()
        with log.open("a") as errors:
            self.process = psutil.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=environment(),
                stdout=out,
                stderr=errors,
            )

    def follow(self, until: Callable[[], bool]) -> tuple[float, float]:
        """Wait until something is so, or the command has ended; return the seconds since its
        start, and the CPU seconds of all its processes. Exits if the command fails."""
        while not until():
            for process in tree(self.process.pid):
                with suppress(psutil.Error):
                    self.cpu[process.pid] = sum(process.cpu_times()[:2])
            with suppress(psutil.TimeoutExpired):
                code = self.process.wait(_SAMPLE_SECONDS)
                if code:
                    said = self.log.read_text()[-3_000:]
                    raise SystemExit(f"the command ended with {code}:\n{said}")
                break
            if time.perf_counter() - self.start > _LIMIT_SECONDS:
                kill_tree(self.process.pid)
                raise SystemExit(f"the command goes on after {_LIMIT_SECONDS:.0f} s")
        return time.perf_counter() - self.start, sum(self.cpu.values())


def _reports(store: Path) -> list[Path]:
    return list(store.glob("searches/*/trials/*/journal/reports/*.json"))


def _num_epochs(store: Path) -> int:
    return len(_reports(store))


def _newest_epoch(store: Path) -> float:
    return max(path.stat().st_mtime for path in _reports(store))


def _listed(values: list[float]) -> str:
    return " ".join(f"{value:.1f}" for value in values) + " s"


if __name__ == "__main__":
    main()
