"""Reads runs, their configs and their checkpoints back from MLflow."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
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
from pipelines.tracking.mlflow.runs import CHECKPOINT, DIGEST, find_run, folder_digest
from pipelines.tracking.mlflow.server import TRIALS, VIEW, view_link
from pipelines.tracking.rows import make_row

T = TypeVar("T")
_PAGE = 1000
_CONFIG = "config.json"
_NAMES = "a run's id or name, or a registered model"
_NAMED = (
    "attributes.run_name = {}",
    "tags.trial_id = {} and tags.kind = 'trial'",
    "tags.search_id = {} and tags.kind = 'search'",
    "tags.search_id = {} and tags.kind = 'confirmation'",
)
"""MLflow's filters for the runs that a name can mean, the first that finds any."""
_UNKNOWN = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
"""MLflow's error codes for a name that it does not know."""


class MlflowReader:
    """A `pipelines.tracking.base.RunReader`."""

    def __init__(self, uri: str, store: Store) -> None:
        self._uri, self._store = uri, store
        self._client = connect(uri)

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
        known = experiment_names(self._client)
        names = {key: name for key, name in known.items() if experiment in (None, name)}
        if experiment is not None and not names:
            raise InputError(
                f"experiment = {experiment!r}: expected one of {', '.join(sorted(known.values()))}"
            )
        condition = " and ".join(f"tags.`{k}` = {quoted(v)}" for k, v in (tags or {}).items())
        page = _PAGE if num is None or where else min(num, _PAGE)
        rows = (as_row(run, names) for run in search_runs(self._client, names, condition, page))
        return list(islice((row for row in rows if where is None or where(row)), num))

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
        """Return the run of this id or name, a trial or a search also by its own id; or of an id
        that begins so, with eight digits or more, as tables have them."""
        if re.fullmatch(r"[0-9a-f]{32}", name) and (run := find_run(self._client, name)):
            return run
        experiments, found = experiment_names(self._client), list[MlflowRun]()
        conditions = [condition.format(quoted(name)) for condition in _NAMED]
        if re.fullmatch(r"[0-9a-f]{8,31}", name):
            conditions.append(f"attributes.run_id LIKE '{name}%'")
        for condition in conditions:
            found = found or list(search_runs(self._client, experiments, condition))
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


def links_of(uri: str) -> dict[str, str]:
    """Return the ends of the addresses of the experiments at a URI, by name, the latest first."""
    client = connect(uri)
    found = client.search_experiments(order_by=["last_update_time DESC"], max_results=_PAGE)
    viewed = {each.experiment_id for each in found if f"{VIEW}{TRIALS}" in each.tags}
    return {
        each.name: view_link(each.experiment_id, TRIALS if each.experiment_id in viewed else "")
        for each in found
        if each.experiment_id in viewed or each.name != "Default"
    }


def search_runs(
    client: MlflowClient, experiments: Mapping[str, str], condition: str, page: int = _PAGE
) -> Iterator[MlflowRun]:
    """Iterate over the runs of these experiments (by id) that fulfil an MLflow filter. `page`: how
    many are asked for at once."""
    return _all(
        lambda token: client.search_runs(
            list(experiments), condition, max_results=page, page_token=token
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


def as_row(run: MlflowRun, names: Mapping[str, str]) -> RunRow:
    """Return a run as a row. `names`: the experiments' names, by id."""
    info, data = run.info, run.data
    experiment = names[info.experiment_id]
    known = (info.run_id, info.run_name, experiment, info.status, info.start_time)
    return make_row(*known, data.metrics, data.params, data.tags)
