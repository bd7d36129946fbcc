"""Whether a search keeps its promise through faults: nothing lost, doubled or different.

A search of a VAE on scikit-learn's digits runs on a Ray cluster of two nodes, with an MLflow
server and a store on a small file system of its own, and faults of a dozen kinds strike it at
random. The command is resumed as often as it ends, and a new search begins when one is complete.
The same searches, undisturbed, are the reference.

    python -m benchmarks.soak --minutes 30

`points_lost`: points of a journal that MLflow lacks, or of the reference that the journals lack.
`points_twice`: points that MLflow holds more than once. `trials_lost`: configs of the reference
without a complete trial. `values_that_differ`: values that are not those of the reference, bit for
bit. `wrong_exits`: commands that ended with another exit code than the fault calls for.
The disk is filled only where this process may mount a file system (as root, or under `unshare`).
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import psutil
import tyro

from benchmarks.figures import ROOT, environment, finish, say, scratch, setting
from benchmarks.processes import answers, free_ports, kill_tree, listens, title, tree, wait_for

_TIMES = ("epoch_seconds", "images_per_second")
"""Metrics that differ from one run to the next."""
_TOKEN = "0123456789abcdef" * 4
_STORE_MIB = 1000
_EXIT_SECONDS = 120.0
"""For how long a command may take to end after a fault that ends it."""


@dataclass(frozen=True)
class Options:
    """Disturb searches for a while, and compare them with undisturbed ones."""

    minutes: float = 30.0
    """Minutes of disturbed search."""
    trials: int = 40
    """Trials of a search."""
    epochs: int = 40
    """Epochs of a trial."""
    seed: int = 0
    """Of the faults."""
    calm: float = 6.0
    """Seconds from one fault to the next, at least, in which the search has made progress."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        soak = Soak(options, folder, stack.enter_context(_small_disk(folder / "store")))
        stack.callback(soak.stop)
        finish("soak", soak.run(), found)


# -- what runs -------------------------------------------------------------------------------
@dataclass
class Soak:
    """The cluster, the server, the search, and what has happened to them."""

    options: Options
    folder: Path
    small_disk: bool
    faults: Counter[str] = field(default_factory=Counter)
    wrong_exits: int = 0
    nodes: dict[str, psutil.Popen] = field(default_factory=dict)
    server: psutil.Popen | None = None
    search: subprocess.Popen[bytes] | None = None
    search_id: str = ""
    round: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.options.seed)
        self.store = self.folder / "store"
        self.ports = dict(zip(("gcs", "dashboard", "mlflow"), free_ports(3), strict=True))

    def run(self) -> dict[str, float]:
        """Search and disturb until the time is over and the last search is complete."""
        self._start_server()
        self._start_cluster()
        searches: list[str] = []
        pending: list[Fault] = []
        disturbed = 0.0
        while disturbed < 60 * self.options.minutes:
            self.round, self.search_id = len(searches), ""
            start = time.monotonic()
            while not self._is_complete():
                self._start_search()
                self._disturb(pending, deadline=start + 60 * self.options.minutes - disturbed)
            disturbed += time.monotonic() - start
            searches.append(self.search_id)
            say(f"search {self.round}: complete, {self.faults.total()} faults so far")
        self._genpipe("runs", timeout=600)  # delivers what is left
        figures = Counter[str]()
        for number, search_id in enumerate(searches):
            figures.update(self._compare(search_id, self._reference(number)))
        say("faults: " + ", ".join(f"{name} {n}" for name, n in sorted(self.faults.items())))
        return {
            "faults": self.faults.total(),
            "kinds": len(self.faults),
            "searches": len(searches),
            **{name: figures[name] for name in _FIGURES},
            "wrong_exits": self.wrong_exits,
            "minutes": disturbed / 60,
        }

    def stop(self) -> None:
        """Stop everything that was started."""
        for process in (self.search, self.server, *self.nodes.values()):
            if process is not None:
                kill_tree(process.pid)

    # -- processes ------------------------------------------------------------------------
    @cached_property
    def environment(self) -> dict[str, str]:
        token = self.folder / "token"
        token.write_text(_TOKEN)
        return {
            **environment(threads=1),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.ports['mlflow']}"

    @property
    def database(self) -> Path:
        return self.folder / "mlflow.db"

    def _start(self, *arguments: str) -> psutil.Popen:
        with (self.folder / "processes.log").open("ab") as log:
            return psutil.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _start_server(self) -> None:
        self.server = self._start(
            *("mlflow", "server", "--workers=1", f"--port={self.ports['mlflow']}"),
            f"--backend-store-uri=sqlite:///{self.database}",
            f"--artifacts-destination={self.folder / 'artifacts'}",
        )
        wait_for(lambda: answers(f"{self.uri}/health"), 120, "no MLflow server")

    def _start_cluster(self) -> None:
        """Start a head and a second node, of one CPU each, in place of what is left of others."""
        for process in self.nodes.values():
            kill_tree(process.pid)
        head = ["--head", f"--port={self.ports['gcs']}", "--dashboard-host=127.0.0.1"]
        self._start_node("head", *head, f"--dashboard-port={self.ports['dashboard']}")
        wait_for(lambda: listens(self.ports["dashboard"]), 120, "no Ray head")
        self._start_node("second", f"--address={self.address}")

    def _start_node(self, name: str, *flags: str) -> None:
        self.nodes[name] = self._start(
            *("ray.scripts.scripts", "start", "--num-cpus=1", "--block"), *flags
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.ports['gcs']}"

    def _arguments(self, number: int, store: Path) -> list[str]:
        """Return the command of a search whose trials and values follow from its seed alone."""
        return [
            *("search", "vae", "--data=digits", f"--store={store}", f"--seed={number}"),
            *(f"--trials={self.options.trials}", f"--epochs={self.options.epochs}"),
            *("--scheduler=fifo", "--searcher=random", "--precision=fp32"),
            *("--execution=in_turn", "--max-failures=100", "--keep-checkpoints=1"),
        ]

    def _start_search(self) -> None:
        """Start the search, or resume it."""
        arguments = self._arguments(self.round, self.store)
        if self.search_id:
            arguments = ["search", "vae", f"--store={self.store}", f"--resume={self.search_id}"]
        arguments += [f"--address={self.address}", f"--tracking-uri={self.uri}"]
        known = set(self._search_ids())
        with (self.folder / "search.log").open("ab") as log:
            self.search = subprocess.Popen(
                [sys.executable, "-m", "pipelines", *arguments],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        if not self.search_id:
            process = self.search
            wait_for(
                lambda: bool(set(self._search_ids()) - known) or process.poll() is not None,
                300,
                "no search began",
            )
            self.search_id = next(iter(set(self._search_ids()) - known), "")

    def _search_ids(self) -> list[str]:
        return [path.parent.name for path in self.store.glob("searches/*/config.json")]

    def _genpipe(self, *arguments: str, timeout: float = 300) -> int:
        """Run a command to its end; return its exit code."""
        command = [sys.executable, "-m", "pipelines", *arguments, f"--store={self.store}"]
        command += [f"--tracking-uri={self.uri}"]
        with (self.folder / "commands.log").open("ab") as log:
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
                timeout=timeout,
                check=False,
            )
        return done.returncode

    # -- faults ---------------------------------------------------------------------------
    def _disturb(self, pending: list[Fault], deadline: float) -> None:
        """Let faults strike until the command has ended, or the time is over; then wait for it."""
        assert self.search is not None
        while self.search.poll() is None and time.monotonic() < deadline:
            if not self._calm():
                break
            if not pending:
                pending += [f for f in FAULTS if self.small_disk or not f.needs_disk]
                self.random.shuffle(pending)
            fault = pending.pop()
            say(f"{fault.name}")
            self.faults[fault.name] += 1
            fault.strike(self)
            if fault.exit_code is not None:
                self._expect_exit(fault)
        code = self.search.wait()
        if code == 1:
            say("the command ended with 1: its log is above")
        if self.nodes["head"].poll() is not None or not listens(self.ports["gcs"]):
            self._start_cluster()

    def _calm(self) -> bool:
        """Wait until the search has made progress for a while; return False if it has ended."""
        assert self.search is not None
        points, since = self._num_points(), time.monotonic()
        wait = self.options.calm * self.random.uniform(1, 2)
        while self.search.poll() is None:
            time.sleep(0.2)
            if time.monotonic() - since > wait and self._num_points() > points:
                return True
        return False

    def _num_points(self) -> int:
        pattern = f"searches/{self.search_id}/trials/*/journal/reports/*.json"
        return sum(1 for _ in self.store.glob(pattern))

    def _expect_exit(self, fault: Fault) -> None:
        assert self.search is not None
        try:
            code = self.search.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            say(f"{fault.name}: the command goes on after {_EXIT_SECONDS:.0f} s")
            kill_tree(self.search.pid)
            code = None
        if code not in (fault.exit_code, 0):  # 0: it was complete before the fault
            say(f"{fault.name}: the command ended with {code}")
            self.wrong_exits += 1

    def _is_complete(self) -> bool:
        if not self.search_id:
            return False
        outcome = self.store / "searches" / self.search_id / "journal" / "outcome.json"
        with suppress(FileNotFoundError):
            return bool(json.loads(outcome.read_text())["ending"] == "completed")
        return False

    # -- what came of it ------------------------------------------------------------------
    def _reference(self, number: int) -> Path:
        """Run a search undisturbed; return its folder."""
        store = self.folder / f"reference-{number}"
        command = [sys.executable, "-m", "pipelines", *self._arguments(number, store)]
        with (self.folder / "reference.log").open("ab") as log:
            subprocess.run(
                command, cwd=ROOT, env=environment(threads=1), stdout=log, stderr=log, check=True
            )
        (folder,) = (store / "searches").iterdir()
        return folder

    def _compare(self, search_id: str, reference: Path) -> dict[str, int]:
        folder = self.store / "searches" / search_id
        trials, expected = _complete_trials(folder), _complete_trials(reference)
        counts = dict.fromkeys(_FIGURES, 0)
        for config, epochs in expected.items():
            if config not in trials:
                counts["trials_lost"] += 1
                continue
            for epoch, metrics in epochs.items():
                own = trials[config].get(epoch, {})
                counts["points_lost"] += len(metrics.keys() - own.keys())
                both = own.keys() & metrics.keys()
                counts["values_that_differ"] += sum(own[k] != metrics[k] for k in both)
        recorded = _recorded_points(self.database)
        for key, epochs in _journals(folder).items():
            for epoch, metrics in epochs.items():
                held = [recorded[key, name, epoch] for name in _delivered(metrics)]
                counts["points_lost"] += held.count(0)
                counts["points_twice"] += sum(number > 1 for number in held)
        return counts


_FIGURES = ("points_lost", "points_twice", "trials_lost", "values_that_differ")
Epochs = dict[int, dict[str, float]]


def _complete_trials(search: Path) -> dict[str, Epochs]:
    """Return the epochs of the complete trials of a search, by their parameters."""
    trials = {}
    for folder in search.glob("trials/*/journal"):
        with suppress(FileNotFoundError):
            if json.loads((folder / "outcome.json").read_text())["ending"] == "completed":
                params = json.loads((folder / "identity.json").read_text())["params"]
                searched = {k: v for k, v in params.items() if k.startswith(("model.", "optim."))}
                trials[json.dumps(searched, sort_keys=True)] = _epochs(folder)
    return trials


def _journals(search: Path) -> dict[str, Epochs]:
    """Return the epochs that count of all trials of a search, by the key of their journal."""
    journals = {}
    for folder in search.glob("trials/*/journal"):
        with suppress(FileNotFoundError):
            last = json.loads((folder / "outcome.json").read_text())["last_epoch"]
            key = json.loads((folder / "identity.json").read_text())["key"]
            epochs = _epochs(folder, timed=True)
            journals[key] = {epoch: m for epoch, m in epochs.items() if epoch <= last}
    return journals


def _delivered(metrics: dict[str, float]) -> list[str]:
    """Return the metrics of an epoch that MLflow has: `diverged` only where it is true."""
    return [name for name, value in metrics.items() if name != "diverged" or value]


def _epochs(journal: Path, *, timed: bool = False) -> Epochs:
    content = [json.loads(path.read_text()) for path in journal.glob("reports/*.json")]
    return {
        each["epoch"]: {k: v for k, v in each["metrics"].items() if timed or k not in _TIMES}
        for each in content
    }


def _recorded_points(database: Path) -> Counter[tuple[str, str, int]]:
    """Return how often MLflow holds each point, by journal key, metric and epoch."""
    query = """
        SELECT tags.value, metrics.key, metrics.step, COUNT(*)
        FROM metrics
        JOIN tags ON tags.run_uuid = metrics.run_uuid AND tags.key = 'key'
        JOIN runs ON runs.run_uuid = metrics.run_uuid AND runs.lifecycle_stage = 'active'
        GROUP BY tags.value, metrics.key, metrics.step
    """
    connection = sqlite3.connect(database)
    rows = connection.execute(query).fetchall()
    connection.close()
    return Counter({(key, name, step): count for key, name, step, count in rows})


# -- the faults ------------------------------------------------------------------------------
@dataclass(frozen=True)
class Fault:
    """One kind of fault."""

    name: str
    strike: Callable[[Soak], None]
    exit_code: int | None = None
    """Of the command that it ends; None if the command goes on."""
    needs_disk: bool = False


def _signal_search(number: signal.Signals) -> Callable[[Soak], None]:
    def strike(soak: Soak) -> None:
        assert soak.search is not None
        soak.search.send_signal(number)

    return strike


def _kill_process(node: str, name: str) -> Callable[[Soak], None]:
    """Kill a process below a node (or below both, `*`) whose title begins with `name`."""

    def strike(soak: Soak) -> None:
        nodes = list(soak.nodes.values()) if node == "*" else [soak.nodes[node]]
        victims = [p for each in nodes for p in tree(each.pid) if title(p).startswith(name)]
        for victim in soak.random.sample(victims, min(1, len(victims))):
            with suppress(psutil.NoSuchProcess):
                victim.kill()

    return strike


def _kill_head(part: str) -> Callable[[Soak], None]:
    """Kill a part of the head; what is left of the cluster goes with it."""

    def strike(soak: Soak) -> None:
        assert soak.search is not None
        for process in tree(soak.nodes["head"].pid):
            with suppress(psutil.NoSuchProcess):  # one that ends just now
                if process.name().startswith(part):
                    process.kill()
        with suppress(subprocess.TimeoutExpired):
            soak.search.wait(_EXIT_SECONDS)
        soak._start_cluster()

    return strike


def _take_node(soak: Soak) -> None:
    kill_tree(soak.nodes["second"].pid)
    time.sleep(3)
    soak._start_node("second", f"--address={soak.address}")


def _stop_server(soak: Soak) -> None:
    assert soak.server is not None
    kill_tree(soak.server.pid)
    time.sleep(soak.random.uniform(2, 12))
    soak._start_server()


def _freeze_server(soak: Soak) -> None:
    assert soak.server is not None
    processes = tree(soak.server.pid)
    for process in processes:
        process.suspend()
    time.sleep(soak.random.uniform(2, 15))
    for process in processes:
        process.resume()


def _fill_disk(soak: Soak) -> None:
    """Leave no room in the store for some seconds."""
    ballast = soak.store / "ballast"
    try:
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while file.write(b"\0" * 2**16):
                pass
        time.sleep(8)
    finally:
        ballast.unlink(missing_ok=True)


def _start_twice(soak: Soak) -> None:
    """Resume the search that is running: that must be refused."""
    code = soak._genpipe("search", "vae", "--resume", soak.search_id, "--address", soak.address)
    running = soak.search is not None and soak.search.poll() is None
    if running and code != 2:
        say(f"a second command of the same search ended with {code}")
        soak.wrong_exits += 1


def _read_thrice(soak: Soak) -> None:
    """List the runs by three commands at once, each of which delivers what is pending."""
    command = [sys.executable, "-m", "pipelines", "runs", f"--store={soak.store}"]
    command += [f"--tracking-uri={soak.uri}"]
    readers = [
        subprocess.Popen(command, cwd=ROOT, env=soak.environment, stdout=subprocess.DEVNULL)
        for _ in range(3)
    ]
    soak.wrong_exits += sum(reader.wait(300) != 0 for reader in readers)


FAULTS = (
    Fault("command killed", _signal_search(signal.SIGKILL), -signal.SIGKILL),
    Fault("command terminated", _signal_search(signal.SIGTERM), 128 + signal.SIGTERM),
    Fault("command interrupted", _signal_search(signal.SIGINT), 128 + signal.SIGINT),
    Fault("fused worker killed", _kill_process("*", "ray::FusedWorker")),
    Fault("trial killed", _kill_process("*", "ray::FusedTrial")),
    Fault("raylet of the head killed", _kill_head("raylet")),
    Fault("GCS killed", _kill_head("gcs_server")),
    Fault("node taken", _take_node),
    Fault("MLflow stopped", _stop_server),
    Fault("MLflow silent", _freeze_server),
    Fault("disk full", _fill_disk, needs_disk=True),
    Fault("started twice", _start_twice),
    Fault("three readers", _read_thrice),
)


# -- small things ----------------------------------------------------------------------------
@contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small file system at `folder` if that is allowed; yields whether it is."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_STORE_MIB}m", "tmpfs", str(folder)]
    mounted = (
        bool(shutil.which("mount"))
        and not subprocess.run(mount, capture_output=True, check=False).returncode
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


if __name__ == "__main__":
    main()
