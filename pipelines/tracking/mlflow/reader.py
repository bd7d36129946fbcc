"""Reads runs, their configs and their checkpoints back from MLflow."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.store.entities import PagedList

from gen_models.core.errors import InputError
from pipelines.config.run import Run
from pipelines.config.serialization import config_from_params, load_config
from pipelines.store.checkpoints import is_checkpoint
from pipelines.store.layout import Store
from pipelines.store.secrets import hide
from pipelines.tracking.base import RunRow
from pipelines.tracking.mlflow.connection import connect
from pipelines.tracking.mlflow.fingerprint import CHECKPOINT, DIGEST, folder_digest
from pipelines.tracking.mlflow.runs import find_run

T = TypeVar("T")
_PAGE = 1000
_CONFIG = "config.json"
_NAMES = "a run's id or name, or a registered model"
_UNKNOWN = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
"""MLflow's error codes for a name that it does not know."""


class MlflowReader:
    """A `pipelines.tracking.base.RunReader`."""

    def __init__(self, uri: str, store: Store) -> None:
        self._uri, self._store = uri, store
        self._client = connect(uri)

    def list_runs(
        self, experiment: str | None = None, tags: Mapping[str, str] | None = None
    ) -> list[RunRow]:
        """Return the runs, newest first: of one experiment or all, with these tags.

        Raises `InputError` if there is no such experiment.
        """
        known = experiment_names(self._client)
        names = {key: name for key, name in known.items() if experiment in (None, name)}
        if experiment is not None and not names:
            raise InputError(
                f"experiment = {experiment!r}: expected one of {', '.join(sorted(known.values()))}"
            )
        condition = " and ".join(f"tags.`{k}` = {quoted(v)}" for k, v in (tags or {}).items())
        return [as_row(run, names) for run in search_runs(self._client, names, condition)]

    def holds(self, run_id: str) -> bool:
        """Return whether there is a run of this id, even if somebody has deleted it."""
        try:
            self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return True

    def run(self, name: str) -> RunRow:
        """Return the run that `name` means: a run's id or name, `models:/NAME/VERSION`,
        `models:/NAME@ALIAS` or `NAME@ALIAS`.

        Raises `InputError` if there is none, or more than one.
        """
        with self._refuse_unknown("run", name, _NAMES):
            run, _ = self._resolve(name)
        return as_row(run, experiment_names(self._client))

    def config(self, row: RunRow) -> Run:
        """Return the config that a run was recorded with: from its artifact `config.json`; of a
        run of an older version, from its parameters."""
        content = self.artifact(row, _CONFIG)
        if content is None:
            return config_from_params(row.params, row.tags)
        return load_config(content, f"{_CONFIG} of run {row.name}")

    def history(self, row: RunRow) -> dict[int, dict[str, float]]:
        """Return the metrics of training and validation of each epoch of a run, ascending."""
        epochs: dict[int, dict[str, float]] = {}
        for name in row.metrics:
            if name.startswith(("train/", "val/")):
                for point in self._client.get_metric_history(row.run_id, name):
                    epochs.setdefault(point.step, {})[name] = point.value
        return dict(sorted(epochs.items()))

    def artifact(self, row: RunRow, path: str) -> bytes | None:
        """Return the content of a run's artifact; None if there is none of this path."""
        above = path.rpartition("/")[0] or None
        if all(file.path != path for file in self._client.list_artifacts(row.run_id, above)):
            return None
        with tempfile.TemporaryDirectory() as folder:
            return Path(self._client.download_artifacts(row.run_id, path, folder)).read_bytes()

    def checkpoint(self, name: str, into: Path) -> Path:
        """Return the checkpoint folder that `name` means: a folder, or what `run` takes; download
        it under `into` if it is not on this machine.

        Raises `InputError` if nothing, or more than one thing, is meant.
        """
        if is_checkpoint(name):
            return Path(name)
        with self._refuse_unknown("model", name, f"a checkpoint folder, {_NAMES}"):
            run, digest = self._resolve(name)
            return self._checkpoint(run, digest, into)

    def _resolve(self, name: str) -> tuple[MlflowRun, str]:
        """Return the run; of a registered version also its checkpoint's digest, because the run
        may have been resumed since."""
        if named := re.fullmatch(r"(?:models:/)?([^/@]+)@([^/@]+)", name):
            version = self._client.get_model_version_by_alias(named[1], named[2])
        elif named := re.fullmatch(r"models:/([^/@]+)/(\d+)", name):
            version = self._client.get_model_version(named[1], named[2])
        else:
            return self._run_named(name), ""
        if not version.run_id:
            raise LookupError(name)
        return self._client.get_run(version.run_id), version.tags.get(DIGEST, "")

    def _run_named(self, name: str) -> MlflowRun:
        """Return the run of this id or name."""
        if re.fullmatch(r"[0-9a-f]{32}", name) and (run := find_run(self._client, name)):
            return run
        condition = f"attributes.run_name = {quoted(name)}"
        found = list(search_runs(self._client, experiment_names(self._client), condition))
        if len(found) > 1:
            ids = ", ".join(run.info.run_id for run in found)
            raise InputError(f"model = {name!r}: expected one run; give an id of {ids}")
        if not found:
            raise LookupError(name)
        return found[0]

    def _checkpoint(self, run: MlflowRun, digest: str, into: Path) -> Path:
        """Return the run's checkpoint, of this digest if one is given."""
        wanted = digest or run.data.tags.get(DIGEST, "")
        here = self._run_folder(run.data.tags, run.info.run_name) / run.data.tags.get(
            CHECKPOINT, ""
        )
        if is_checkpoint(here) and (not wanted or folder_digest(here) == wanted):
            return here
        run_id, name = run.info.run_id, run.info.run_name
        if not any(file.path == CHECKPOINT for file in self._client.list_artifacts(run_id)):
            raise InputError(
                f"run {name} ({run_id}) has no checkpoint, neither on this machine nor in MLflow"
            )
        (into / run_id).mkdir(parents=True, exist_ok=True)
        fetched = Path(self._client.download_artifacts(run_id, CHECKPOINT, str(into / run_id)))
        if digest and folder_digest(fetched) != digest:
            raise InputError(
                f"run {name} ({run_id}) was resumed since, and the checkpoint that is meant is no "
                "longer kept"
            )
        return fetched

    def _run_folder(self, tags: Mapping[str, str], name: str) -> Path:
        """Return the folder that a run has in this store, if it is recorded here. A checkpoint's
        path that an older version recorded is absolute, and stays so behind it."""
        search_id, trial_id = tags.get("search_id"), tags.get("trial_id")
        if search_id and trial_id:
            return self._store.search(search_id).trial(trial_id).path
        return self._store.run(name).path

    @contextmanager
    def _refuse_unknown(self, field: str, value: str, expected: str) -> Iterator[None]:
        """Raise `InputError` with what is registered if MLflow does not know a name."""
        try:
            yield
        except (MlflowException, LookupError) as error:
            if getattr(error, "error_code", "RESOURCE_DOES_NOT_EXIST") not in _UNKNOWN:
                raise
            models = self._client.search_registered_models(max_results=20)
            known = ", ".join(f"models:/{model.name}" for model in models) or "nothing"
            raise InputError(
                f"{field} = {value!r}: expected {expected}; registered at "
                f"{hide(self._uri)}: {known}"
            ) from error


def experiment_names(client: MlflowClient) -> dict[str, str]:
    """Return the names of the experiments, by id."""
    found = _all(lambda token: client.search_experiments(max_results=_PAGE, page_token=token))
    return {experiment.experiment_id: experiment.name for experiment in found}


def search_runs(
    client: MlflowClient, experiments: Mapping[str, str], condition: str
) -> Iterator[MlflowRun]:
    """Iterate over the runs of these experiments (by id) that fulfil an MLflow filter."""
    return _all(
        lambda token: client.search_runs(
            list(experiments), condition, max_results=_PAGE, page_token=token
        )
    )


def quoted(text: str) -> str:
    """Return a string of MLflow's filter language, which has two kinds of quotes and no escape."""
    if "'" not in text:
        return f"'{text}'"
    if '"' not in text:
        return f'"{text}"'
    raise InputError(f"{text!r}: expected no more than one kind of quote")


def _all(page: Callable[[str | None], PagedList[T]]) -> Iterator[T]:
    """Iterate over the items of all pages; `page(token)` requests one."""
    token = None
    while True:
        items = page(token)
        yield from items
        if not (token := items.token):
            return


def _epoch(value: float) -> int:
    """Return an epoch; 0 for a number that is none, which only a run of others can have."""
    return int(value) if math.isfinite(value) else 0


def as_row(run: MlflowRun, names: Mapping[str, str]) -> RunRow:
    """Return a run as a row. `names`: the experiments' names, by id."""
    tags = run.data.tags
    return RunRow(
        run_id=run.info.run_id,
        name=run.info.run_name,
        experiment=names[run.info.experiment_id],
        kind=tags.get("kind", ""),
        search_id=tags.get("search_id", ""),
        trial_id=tags.get("trial_id", ""),
        status=run.info.status,
        outcome=tags.get("outcome", ""),
        epoch=_epoch(run.data.metrics.get("epoch", 0)),
        metrics=dict(run.data.metrics),
        params=dict(run.data.params),
        tags=dict(tags),
        start_time=datetime.fromtimestamp(run.info.start_time / 1000).astimezone(),
    )
