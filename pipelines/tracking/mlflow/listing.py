"""Lists the runs of a database in a file without importing MLflow, whose import takes seconds.

The tables are read as MLflow 3.17 has them; `database.is_complete` says whether they are those. A
test compares what is listed with what MLflow's own client answers.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gen_models.core.errors import InputError
from pipelines.config.run import Run
from pipelines.store.layout import Store
from pipelines.tracking.base import RunReader, RunRow
from pipelines.tracking.mlflow.server import TRIALS, VIEW, view_link
from pipelines.tracking.rows import make_row

_BUSY_SECONDS = 60.0
_BATCH = 100
"""Runs whose values are read together."""
_RUNS = """
SELECT runs.run_uuid, runs.name, experiments.name, runs.status, runs.start_time
FROM runs JOIN experiments ON runs.experiment_id = experiments.experiment_id
WHERE runs.lifecycle_stage = 'active' AND experiments.lifecycle_stage = 'active' {conditions}
ORDER BY runs.start_time DESC, runs.run_uuid
"""
_WITH_TAG = """
AND EXISTS (SELECT 1 FROM tags WHERE tags.run_uuid = runs.run_uuid AND key = ? AND value = ?)
"""
_VIEWED = """
SELECT experiments.experiment_id, experiments.name, tags.value IS NOT NULL FROM experiments
LEFT JOIN experiment_tags AS tags
ON tags.experiment_id = experiments.experiment_id AND tags.key = ?
WHERE experiments.lifecycle_stage = 'active' AND EXISTS
(SELECT 1 FROM runs WHERE runs.experiment_id = experiments.experiment_id)
ORDER BY experiments.last_update_time DESC
"""


def experiment_links(path: Path) -> dict[str, str]:
    """Return the ends of the addresses of the experiments that have runs, by name, the latest
    first. Of what an older version recorded there is no view."""
    with closing(sqlite3.connect(path, _BUSY_SECONDS)) as connection:
        rows = connection.execute(_VIEWED, [f"{VIEW}{TRIALS}"]).fetchall()
    return {name: view_link(str(key), TRIALS if viewed else "") for key, name, viewed in rows}


class FileReader:
    """A `pipelines.tracking.base.RunReader` of a SQLite file. What it does not do by itself,
    MLflow does, which is imported then."""

    def __init__(self, path: Path, uri: str, store: Store) -> None:
        self._path, self._uri, self._store = path, uri, store
        self._reader: RunReader | None = None

    def list_runs(
        self,
        experiment: str | None = None,
        tags: Mapping[str, str] | None = None,
        *,
        where: Callable[[RunRow], bool] | None = None,
        num: int | None = None,
    ) -> list[RunRow]:
        """Return the runs, newest first, as `RunReader.list_runs` says.

        Raises `InputError` if there is no such experiment.
        """
        conditions, values = "", list[str]()
        if experiment is not None:
            conditions, values = "AND experiments.name = ?", [experiment]
        for name, value in (tags or {}).items():
            conditions, values = conditions + _WITH_TAG, [*values, name, value]
        with self._connect() as connection:
            if experiment is not None:
                _require_experiment(connection, experiment)
            found = connection.execute(_RUNS.format(conditions=conditions), values).fetchall()
            rows = (
                row
                for start in range(0, len(found), _BATCH)
                for row in _rows(connection, found[start : start + _BATCH])
            )
            return list(islice((row for row in rows if where is None or where(row)), num))

    def holds(self, run_id: str) -> bool:
        """Return whether there is a run of this id, even if somebody has deleted it."""
        with self._connect() as connection:
            query = "SELECT 1 FROM runs WHERE run_uuid = ?"
            return connection.execute(query, [run_id]).fetchone() is not None

    def run(self, name: str) -> RunRow:
        """Return the run that `name` means, as `RunReader.run` says."""
        return self._mlflow().run(name)

    def config(self, row: RunRow) -> Run:
        """Return the config that a run was recorded with."""
        return self._mlflow().config(row)

    def history(self, row: RunRow) -> dict[int, dict[str, float]]:
        """Return the metrics of each epoch of a run, as `RunReader.history` says."""
        return self._mlflow().history(row)

    def artifact(self, row: RunRow, path: str) -> bytes | None:
        """Return the content of a run's artifact; None if there is none of this path."""
        return self._mlflow().artifact(row, path)

    def checkpoint(self, name: str, into: Path) -> Path:
        """Return the checkpoint folder that `name` means, as `RunReader.checkpoint` says."""
        return self._mlflow().checkpoint(name, into)

    def _mlflow(self) -> RunReader:
        if self._reader is None:
            from pipelines.tracking.mlflow.reader import MlflowReader  # light: imports mlflow

            self._reader = MlflowReader(self._uri, self._store)
        return self._reader

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        uri = f"file:{quote(str(self._path))}?mode=rw"
        with closing(sqlite3.connect(uri, _BUSY_SECONDS, uri=True)) as connection:
            yield connection


def _require_experiment(connection: sqlite3.Connection, name: str) -> None:
    query = "SELECT name FROM experiments WHERE lifecycle_stage = 'active'"
    known = sorted(known for (known,) in connection.execute(query))
    if name not in known:
        raise InputError(f"experiment = {name!r}: expected one of {', '.join(known)}")


def _rows(connection: sqlite3.Connection, found: Sequence[tuple[Any, ...]]) -> list[RunRow]:
    """Return some runs with their metrics, parameters and tags."""
    run_ids = [row[0] for row in found]
    metrics = _by_run(connection, "latest_metrics", run_ids, "is_nan")
    params = _by_run(connection, "params", run_ids)
    tags = _by_run(connection, "tags", run_ids)
    return [_row(row, metrics[row[0]], params[row[0]], tags[row[0]]) for row in found]


def _by_run(
    connection: sqlite3.Connection, table: str, run_ids: Sequence[str], is_nan: str = "0"
) -> dict[str, dict[str, Any]]:
    """Return a table's values of some runs, by run and by key."""
    found: dict[str, dict[str, Any]] = {run_id: {} for run_id in run_ids}
    places = ",".join("?" * len(run_ids))
    query = f"SELECT run_uuid, key, value, {is_nan} FROM {table} WHERE run_uuid IN ({places})"  # nosec
    for run_id, key, value, without_value in connection.execute(query, run_ids):
        found[run_id][key] = math.nan if without_value else value
    return found


def _row(
    row: tuple[Any, ...],
    metrics: Mapping[str, float],
    params: Mapping[str, str],
    tags: Mapping[str, str],
) -> RunRow:
    run_id, name, experiment, status, start_time = row
    return make_row(run_id, name, experiment, status, start_time, metrics, params, tags)
