"""What a tracking system supplies: protocols of the tracker, of what delivers to it, and of what
reads runs back.

A tracking system is found by the URIs that it accepts. It is a package in this folder whose
`__init__` holds `BACKEND`, a `Backend`, as `pipelines.tracking.mlflow` does; or another package
registers it as an entry point:

    [project.entry-points."genpipe.trackers"]
    mine = "my_package.tracker:BACKEND"
"""

from __future__ import annotations

import os
import pkgutil
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from gen_models.core.errors import InputError
from pipelines.config.run import Run
from pipelines.store.journal import EvaluationJournal, Journal
from pipelines.store.layout import Store
from pipelines.store.secrets import environment_uri, hide, reveal

GROUP = "genpipe.trackers"
"""The entry-point group in which other packages register tracking systems."""


class RunWriter(Protocol):
    """Delivers journals to a tracking system. Used by one thread."""

    def prepare(self) -> None:
        """Connect, and create what is missing, such as a new database's tables. May raise."""

    def deliver(self, journal: Journal, upto: int | None = None, *, anew: bool = False) -> None:
        """Bring the tracking system up to the journal: to the epoch `upto`, or to the journal's
        end if the run has ended. May be called again after an error: it loses and repeats nothing.

        `anew`: compare with what the tracking system holds, whatever is recorded of earlier
        deliveries. A run that somebody deleted there stays deleted.

        Writes with `Journal.mark_delivered` at least `{"uri", "run_id", "outcome"}`, and of a
        model `{"model_uri", "version", "is_champion"}` or `{"model_error"}`. Raises whatever the
        tracking system raises.
        """

    def deliver_evaluation(self, journal: EvaluationJournal, *, anew: bool = False) -> None:
        """Add an evaluation to its run. May be called again after an error. `anew`: whatever is
        recorded of earlier deliveries."""


class Tracker(Protocol):
    """What training sees of tracking: a queue that never blocks and never raises."""

    def sync(self, journal: Journal | EvaluationJournal, upto: int | None = None) -> None:
        """Deliver the journal up to the epoch `upto`, or all of it, soon. Returns at once."""

    def flush(self, timeout: float) -> bool:
        """Wait until everything is delivered; return whether it is, after `timeout` seconds."""

    def run_id(self, journal: Journal) -> str | None:
        """Return the tracking system's id of the run; None before it was delivered."""


@dataclass(frozen=True)
class RunRow:
    """A run as the tracking system holds it."""

    run_id: str
    name: str
    experiment: str
    kind: str
    """A `pipelines.store.journal.RunKind`; "" of another program's run."""
    search_id: str
    trial_id: str
    status: str
    """MLflow's: RUNNING, FINISHED, KILLED or FAILED."""
    outcome: str
    """A `pipelines.store.journal.RunStatus`; "" while the run is going on."""
    epoch: int
    """The last epoch that is recorded; 0 before the first, and of a search."""
    metrics: Mapping[str, float]
    """The latest value of each."""
    params: Mapping[str, str]
    tags: Mapping[str, str]
    start_time: datetime


class RunReader(Protocol):
    """Reads recorded runs back. Methods raise `InputError` if nothing, or more than one thing, is
    of the name that is asked for."""

    def list_runs(
        self,
        experiment: str | None = None,
        tags: Mapping[str, str] | None = None,
        *,
        where: Callable[[RunRow], bool] | None = None,
        num: int | None = None,
    ) -> list[RunRow]:
        """Return the runs, newest first: of one experiment or all, with these tags, of which
        `where` is true; `num` at most. Asks for no more runs than that takes."""

    def holds(self, run_id: str) -> bool:
        """Return whether there is a run of this id, even if somebody has deleted it."""

    def run(self, name: str) -> RunRow:
        """Return the run that `name` means: a run's id (also one that it had before its tracking
        system was recorded anew) or name, `models:/NAME/VERSION`,
        `models:/NAME@ALIAS` or `NAME@ALIAS`."""

    def config(self, row: RunRow) -> Run:
        """Return the config that a run was recorded with."""

    def history(self, row: RunRow) -> dict[int, dict[str, float]]:
        """Return the metrics of training and validation of each epoch of a run, ascending."""

    def artifact(self, row: RunRow, path: str) -> bytes | None:
        """Return the content of a run's artifact; None if there is none of this path."""

    def checkpoint(self, name: str, into: Path) -> Path:
        """Return the checkpoint folder that `name` means, as in `run`; if it is not on this
        machine, it is downloaded under `into`."""


@runtime_checkable
class Backend(Protocol):
    """A tracking system."""

    name: str
    """Its name in messages."""

    def accepts(self, uri: str) -> bool:
        """Return whether the URI belongs to this tracking system."""

    def check(self, uri: str) -> str:
        """Return the URI in its full form. Raises `InputError` if nothing answers there."""

    def settings(self) -> AbstractContextManager[None]:
        """Set the process's environment as the tracking system's client needs it, for a block."""

    def writer(self, uri: str, store: Store) -> RunWriter:
        """Return a writer. It imports the client, which takes seconds."""

    def reader(self, uri: str, store: Store) -> RunReader:
        """Return a reader."""

    def public_uri(self, uri: str) -> str:
        """Return the URI without a password, as it may be shown and written down."""

    def serve(self, uri: str, store: Store, port: int, *, auth: bool = False) -> None:
        """Serve the web page to this machine until interrupted; with `auth` only to who gives the
        name and the password of the environment. Raises `InputError` if the port is in use, or
        the environment has no password."""


def tracking_uri(store: Store, uri: str | None = None) -> str:
    """Return the tracking URI: `uri`, or the environment's (`environment_uri`), or the database
    `mlflow.db` in the store, which is created if need be.

    Raises `InputError` if the store cannot be written, or if nothing answers at the URI within
    some ten seconds.
    """
    uri = uri or environment_uri() or _own_database(store)
    _require_writable(store.root)
    uri = reveal(uri)
    return find_backend(uri).check(uri)


def check_recording(store: Store, uri: str | None = None) -> None:
    """Check, without writing, that a command can record in a store and at a tracking URI. Raises
    `InputError` as `tracking_uri` does."""
    chosen = reveal(uri or environment_uri() or _own_database(store))
    folder = next(each for each in (store.root, *store.root.parents) if each.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        expected = f"a writable folder, and {folder} is none"
        raise InputError(f"store = {str(store.root)!r}: expected {expected}")
    backend = find_backend(chosen)
    if uri or environment_uri():
        backend.check(chosen)


def recorded_uri(store: Store, uri: str | None = None) -> str:
    """Return the tracking URI for a command that only reads. Raises `InputError` if nothing is
    recorded there."""
    elsewhere = uri or environment_uri()
    if not elsewhere and not store.files.exists(store.database):
        expected = "expected a folder in which runs are recorded"
        if store.journals():
            anew = sync_command(store)
            expected += f"; its database is missing, and `{anew}` records its runs anew"
        raise InputError(f"store = {str(store.root)!r}: {expected}")
    return tracking_uri(store, uri)


def _own_database(store: Store) -> str:
    """Return the URI of the database in the store."""
    path = str(store.database)
    if "%" in path or "?" in path:
        expected = (
            "expected a path without % and ?, which the URI of its database cannot hold; or a "
            "server, by --tracking-uri"
        )
        raise InputError(f"store = {str(store.root)!r}: {expected}")
    return f"sqlite:///{path}"


def sync_command(store: Store, uri: str = "") -> str:
    """Return the command that records a store's runs anew at `uri`, a URI without a password, or
    in the store's own database."""
    words = ["genpipe", "sync", "--store", str(store.root)]
    elsewhere = uri not in ("", f"sqlite:///{store.database}")
    return shlex.join([*words, "--tracking-uri", uri] if elsewhere else words)


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"store = {str(folder)!r}: expected a writable folder: {error}"
        ) from error


def find_backend(uri: str) -> Backend:
    """Return the tracking system of a URI: a package in this folder, or one that another package
    registers.

    Raises `InputError` if none accepts it, or if a registered one is broken.
    """
    for backend in _backends():
        if backend.accepts(uri):
            return backend
    raise InputError(
        f"tracking_uri = {hide(uri)!r}: expected sqlite:///FILE, postgresql://… or "
        "http(s)://HOST:PORT (MLflow no longer records in plain folders)"
    )


def _backends() -> Iterator[Backend]:
    """Iterate over the tracking systems, those of this folder first. Each is imported only if
    those before it do not accept the URI."""
    package = import_module("pipelines.tracking")
    for module in pkgutil.iter_modules(package.__path__):
        if module.ispkg:
            yield import_module(f"{package.__name__}.{module.name}").BACKEND
    for entry_point in entry_points(group=GROUP):
        where = f"tracker {entry_point.name!r}: entry point {entry_point.value}"
        try:
            backend: Any = entry_point.load()
        except (ImportError, AttributeError) as error:
            raise InputError(f"{where} is broken: {error}") from error
        if not isinstance(backend, Backend):
            raise InputError(f"{where} is {backend!r}: expected a pipelines.tracking.base.Backend")
        yield backend
