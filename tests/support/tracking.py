"""A tracking system in memory: a second implementation of the protocols of tracking.

`register_memory_tracker` makes it known as another package would, by an entry point.
"""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from gen_models.core.errors import InputError
from pipelines.analysis.champion import Claim
from pipelines.analysis.comparability import KEY, comparison_key
from pipelines.config.run import Run
from pipelines.config.serialization import config_from_params, load_config
from pipelines.store.checkpoints import MODEL_FILE
from pipelines.store.journal import EvaluationJournal, Journal, Outcome, RunInfo
from pipelines.store.layout import RunFolder, Store
from pipelines.tracking.base import RunReader, RunRow, RunWriter

SETTING = "MEMORY_TRACKER"
"""The environment variable that the tracking system sets while its client is used."""
_WAIT = 60.0
"""Seconds after which a test that waits for something fails."""
_STATUS = {
    **{"completed": "FINISHED", "stopped_early": "FINISHED"},
    **{"diverged": "FAILED", "failed": "FAILED"},
}


@dataclass
class MemoryRun:
    """A run, with its points by metric and epoch."""

    row: RunRow
    points: dict[str, dict[int, float]] = field(default_factory=dict)
    pictures: set[str] = field(default_factory=set)
    config: bytes = b""
    checkpoint: Mapping[str, bytes] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Version:
    """A version of a registered model."""

    run_id: str
    claim: Claim | None
    is_champion: bool = False


class MemoryServer:
    """Holds runs by key. It can be down, and it can keep callers waiting."""

    def __init__(self) -> None:
        self.runs: dict[str, MemoryRun] = {}
        self.versions: dict[str, list[Version]] = {}
        self.is_down = False
        self.refused: set[str] = set()
        """Names of runs that it does not take."""
        self.seconds = 0.0
        """How long a request takes."""
        self.gate = threading.Event()
        """Requests wait until it is set."""
        self.gate.set()
        self.requests: list[tuple[str, int | None]] = []
        """Name of the run, and the epoch up to which it was to be delivered."""
        self._changed = threading.Condition()

    def request(self, name: str, upto: int | None = None) -> None:
        """Note a request. Raises `ConnectionError` if the server is down."""
        with self._changed:
            self.requests.append((name, upto))
            self._changed.notify_all()
        self.gate.wait(_WAIT)
        time.sleep(self.seconds)
        if self.is_down:
            raise ConnectionError("the server is down")
        if name in self.refused:
            raise ConnectionError(f"the server does not take {name}")

    def await_requests(self, num: int, name: str = "") -> None:
        """Wait until `num` requests were made, of the run `name` or of any."""

        def made() -> bool:
            return sum(name in ("", each) for each, _ in self.requests) >= num

        with self._changed:
            assert self._changed.wait_for(made, _WAIT), f"fewer than {num} requests"

    def run(self, name: str) -> MemoryRun:
        """Return the only run of this name."""
        (found,) = [run for run in self.runs.values() if run.row.name == name]
        return found


class MemoryBackend:
    """A `pipelines.tracking.base.Backend` whose URIs are `memory://NAME`."""

    name = "memory"

    def __init__(self) -> None:
        self.servers: dict[str, MemoryServer] = {}

    def server(self, uri: str) -> MemoryServer:
        """Return the server at a URI. Raises `KeyError` if there is none."""
        return self.servers[self.public_uri(uri)]

    def accepts(self, uri: str) -> bool:
        return uri.startswith("memory://")

    def check(self, uri: str) -> str:
        if self.public_uri(uri) not in self.servers:
            raise InputError(f"tracking_uri = {self.public_uri(uri)!r}: expected a server")
        if self.server(uri).is_down:
            raise InputError(f"tracking server {self.public_uri(uri)} does not answer")
        return uri

    @contextmanager
    def settings(self) -> Iterator[None]:
        before = os.environ.get(SETTING)
        os.environ[SETTING] = "used"
        try:
            yield
        finally:
            os.environ.pop(SETTING)
            if before is not None:
                os.environ[SETTING] = before

    def writer(self, uri: str, store: Store) -> RunWriter:
        return MemoryWriter(self.server(uri), self.public_uri(uri))

    def reader(self, uri: str, store: Store) -> RunReader:
        return MemoryReader(self.server(uri))

    def public_uri(self, uri: str) -> str:
        return re.sub(r":[^:/@]+@", "@", uri)

    def serve(self, uri: str, store: Store, port: int, *, auth: bool = False) -> None:
        raise InputError(f"port = {port}: a tracker in memory has no page")


BACKEND = MemoryBackend()


class MemoryWriter:
    """A `pipelines.tracking.base.RunWriter`: a delivery replaces what the server held."""

    def __init__(self, server: MemoryServer, uri: str) -> None:
        self._server, self._uri = server, uri

    def prepare(self) -> None:
        pass

    def deliver(self, journal: Journal, upto: int | None = None, *, anew: bool = False) -> None:
        info, outcome = journal.required_info(), journal.outcome()
        self._server.request(info.name, upto)
        run = self._run(journal, info)
        for record in journal.records(upto=outcome.last_epoch if outcome else upto):
            for name, value in record.metrics.items():
                run.points.setdefault(name, {})[record.epoch] = value
            run.pictures |= {f"{key}/{record.epoch}" for key in record.pictures}
            if info.kind not in ("search", "confirmation"):  # whose records are no epochs
                run.row = replace(run.row, epoch=max(run.row.epoch, record.epoch))
        latest = {name: points[max(points)] for name, points in run.points.items()}
        metrics = {**run.row.metrics, **latest, **(outcome.summary if outcome else {})}
        tags = {**run.row.tags, **(outcome.tags if outcome else {})}
        ending = outcome.ending if outcome else ""
        status = _STATUS.get(ending, "KILLED") if ending else "RUNNING"
        run.row = replace(run.row, metrics=metrics, tags=tags, status=status, outcome=ending)
        for folder, path in (outcome.artifacts if outcome else {}).items():
            file = journal.run_folder / path
            if file.is_file():
                run.artifacts[f"{folder}/{file.name}"] = file.read_bytes()
        delivered = {"uri": self._uri, "run_id": run.row.run_id}
        delivered["outcome"] = asdict(outcome) if outcome else None
        model = (
            self._model(run, info, outcome, journal.run_folder)
            if outcome and outcome.checkpoint
            else {}
        )
        journal.mark_delivered(delivered | model)

    def deliver_evaluation(self, journal: EvaluationJournal, *, anew: bool = False) -> None:
        record = journal.record()
        assert record
        self._server.request(record.run_id)
        (run,) = [run for run in self._server.runs.values() if run.row.run_id == record.run_id]
        metrics, tags = {**run.row.metrics, **record.metrics}, {**run.row.tags, **record.tags}
        run.row = replace(run.row, metrics=metrics, tags=tags)
        run.pictures |= set(record.pictures)
        journal.mark_delivered(self._uri)

    def _run(self, journal: Journal, info: RunInfo) -> MemoryRun:
        if info.parent:
            parent = Journal(journal.run_folder / info.parent, journal.files)
            self._run(parent, parent.required_info())
        if info.key not in self._server.runs:
            row = RunRow(
                run_id=uuid.uuid4().hex,
                name=info.name,
                experiment=info.experiment,
                kind=info.kind,
                search_id=info.search_id,
                trial_id=info.trial_id,
                status="RUNNING",
                outcome="",
                epoch=0,
                metrics={},
                params={name: str(value) for name, value in info.params.items()},
                tags=dict(info.tags),
                start_time=datetime.fromtimestamp(journal.started_ms() / 1000, UTC),
            )
            self._server.runs[info.key] = MemoryRun(row)
        run = self._server.runs[info.key]
        config = RunFolder(journal.run_folder, journal.files).config
        if journal.files.exists(config):
            run.config = journal.files.read(config)
        return run

    def _model(
        self, run: MemoryRun, info: RunInfo, outcome: Outcome, run_folder: Path
    ) -> dict[str, object]:
        folder = run_folder / outcome.checkpoint
        run.checkpoint = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
        delivered: dict[str, object] = {"model_uri": f"memory:{run.row.run_id}"}
        if not outcome.register:
            return delivered
        digest = str(info.dataset.get("digest", ""))
        tags = {name: str(value) for name, value in outcome.champion.items()}
        metric = tags.get("metric", "")
        key = comparison_key(info.params, {"data_digest": digest, **info.tags}, metric)
        claim = Claim.from_tags(tags | {KEY: key})
        versions = self._server.versions.setdefault(outcome.register, [])
        own = [version for version in versions if version.run_id == run.row.run_id]
        if not own:
            versions.append(Version(run.row.run_id, claim))
            holder = next((each for each in versions if each.is_champion), None)
            if claim and claim.takes_alias_from(holder.claim if holder else None):
                for version in versions:
                    version.is_champion = version is versions[-1]
            own = versions[-1:]
        number = versions.index(own[0]) + 1
        return delivered | {"version": str(number), "is_champion": own[0].is_champion}


class MemoryReader:
    """A `pipelines.tracking.base.RunReader`."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    def list_runs(
        self,
        experiment: str | None = None,
        tags: Mapping[str, str] | None = None,
        *,
        where: Callable[[RunRow], bool] | None = None,
        num: int | None = None,
    ) -> list[RunRow]:
        self._server.request("")
        rows = [run.row for run in self._server.runs.values()]
        known = sorted({row.experiment for row in rows})
        if experiment is not None and experiment not in known:
            raise InputError(f"experiment = {experiment!r}: expected one of {', '.join(known)}")
        found = [
            row
            for row in rows
            if experiment in (None, row.experiment) and _has_tags(row, tags or {})
        ]
        newest_first = sorted(found, key=lambda row: row.start_time, reverse=True)
        return [row for row in newest_first if where is None or where(row)][:num]

    def holds(self, run_id: str) -> bool:
        return any(run.row.run_id == run_id for run in self._server.runs.values())

    def run(self, name: str) -> RunRow:
        return self._find("run", name).row

    def config(self, row: RunRow) -> Run:
        run = self._find("run", row.run_id)
        if not run.config:
            return config_from_params(row.params, row.tags)
        return load_config(run.config, f"config.json of run {row.name}")

    def history(self, row: RunRow) -> dict[int, dict[str, float]]:
        epochs: dict[int, dict[str, float]] = {}
        for name, points in self._find("run", row.run_id).points.items():
            for epoch, value in points.items():
                if name.startswith(("train/", "val/")):
                    epochs.setdefault(epoch, {})[name] = value
        return dict(sorted(epochs.items()))

    def artifact(self, row: RunRow, path: str) -> bytes | None:
        return self._find("run", row.run_id).artifacts.get(path)

    def checkpoint(self, name: str, into: Path) -> Path:
        if (Path(name) / MODEL_FILE).is_file():
            return Path(name)
        run = self._find("model", name)
        if not run.checkpoint:
            raise InputError(f"run {run.row.name} ({run.row.run_id}) has no checkpoint")
        folder = into / run.row.run_id
        folder.mkdir(parents=True)
        for file, content in run.checkpoint.items():
            (folder / file).write_bytes(content)
        return folder

    def _find(self, what: str, name: str) -> MemoryRun:
        self._server.request("")
        wanted = self._registered(name)
        found = [
            run
            for run in self._server.runs.values()
            if run.row.run_id == (wanted or name) or (not wanted and run.row.name == name)
        ] or [
            run
            for run in self._server.runs.values()
            if not wanted and len(name) >= 8 and run.row.run_id.startswith(name)
        ]
        if len(found) != 1:
            ids = ", ".join(run.row.run_id for run in found)
            expected = f"one run; give an id of {ids}" if found else "a run's id or name"
            raise InputError(f"{what} = {name!r}: expected {expected}")
        return found[0]

    def _registered(self, name: str) -> str | None:
        """Return the id of the run of a registered version; None if the name means none."""
        if named := re.fullmatch(r"(?:models:/)?([^/@]+)@champion", name):
            versions = [v for v in self._server.versions.get(named[1], []) if v.is_champion]
        elif named := re.fullmatch(r"models:/([^/@]+)/(\d+)", name):
            number = int(named[2])
            versions = self._server.versions.get(named[1], [])[number - 1 : number]
        else:
            return None
        return versions[0].run_id if versions else None


def _has_tags(row: RunRow, tags: Mapping[str, str]) -> bool:
    known = {"kind": row.kind, "search_id": row.search_id, "trial_id": row.trial_id, **row.tags}
    return all(known.get(name) == value for name, value in tags.items())


def write_tracker_package(folder: Path, value: str = "support.tracking:BACKEND") -> None:
    """Write the metadata of a package that registers a tracking system, to be put on `sys.path`.
    `value`: of its entry point."""
    metadata = folder / "memory_tracker-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: memory-tracker\nVersion: 1.0\n"
    )
    (metadata / "entry_points.txt").write_text(f"[genpipe.trackers]\nmemory = {value}\n")
