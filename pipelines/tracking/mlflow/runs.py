"""Finds or creates the MLflow run of a journal.

MLflow chooses the ids of its runs itself, so a run is found by the tag `key`.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    InputTag,
    LifecycleStage,
    Param,
    Run,
)
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_SOURCE_NAME,
    MLFLOW_USER,
)
from mlflow.utils.validation import (
    MAX_DATASET_DIGEST_SIZE,
    MAX_PARAM_VAL_LENGTH,
    MAX_PARAMS_TAGS_PER_BATCH,
    MAX_TAG_VAL_LENGTH,
)

from pipelines.store.journal import Journal, Labels, RunInfo
from pipelines.store.layout import RunFolder, Store
from pipelines.store.secrets import hide
from pipelines.tracking.mlflow.connection import artifact_location
from pipelines.tracking.mlflow.images import Pictures
from pipelines.tracking.rows import NOTE, SETTINGS, delivered_epoch

PREVIOUS_IDS = "previous_run_ids"
"""The tag with the ids that a run had before it was recorded anew, as in another database."""
CHECKPOINT = "checkpoint"
"""Tag with the checkpoint folder's name in the run's folder, and name of the artifact folder that
is a copy of it."""
DIGEST = "checkpoint_digest"
"""Tag, of a run and of a registered version, that identifies a checkpoint."""
_DESCRIBED = "described"
"""The tag that marks a run whose params, data set and config are complete."""


@dataclass
class KnownRun:
    """What MLflow held of a run when it last answered."""

    run_id: str
    experiment_id: str
    epoch: int
    """The watermark."""
    running: bool
    pictures: Pictures
    labels: Labels
    """How a person labels the run."""


class Runs:
    """The runs that this process delivers. Each is looked up once; `forget` when in doubt."""

    def __init__(self, client: MlflowClient, uri: str, store: Store) -> None:
        self._client, self._uri, self._store = client, uri, store
        self._runs: dict[str, KnownRun] = {}
        self._experiments: dict[str, str] = {}

    def get(self, journal: Journal) -> KnownRun:
        """Return the journal's run; create and describe it, and its parent, if need be."""
        folder = os.path.abspath(journal.run_folder)
        if folder not in self._runs:
            self._runs[folder] = self._get(journal)
        return self._runs[folder]

    def forget(self) -> None:
        """Look everything up again: a write may have succeeded although its answer was lost."""
        self._runs.clear()
        self._experiments.clear()

    def forget_run(self, journal: Journal) -> None:
        """Look a run up again, because another process has delivered to it."""
        self._runs.pop(os.path.abspath(journal.run_folder), None)

    def _get(self, journal: Journal) -> KnownRun:
        info = journal.required_info()
        experiment_id = self._experiment(info.experiment)
        run = self._find(experiment_id, info.key)
        if not run:
            self._create(journal, info, experiment_id)
            run = self._find(experiment_id, info.key)  # one, even if a request was repeated
        assert run
        if _DESCRIBED not in run.data.tags:
            self._describe(run.info.run_id, journal, info)
        epoch = delivered_epoch(run.data.metrics)
        labels = journal.labels()
        self._label(run, journal, labels)
        return KnownRun(
            run.info.run_id,
            experiment_id,
            -1 if epoch is None else epoch,
            run.info.status == "RUNNING",
            Pictures(self._client, run.info.run_id),
            labels,
        )

    def _label(self, run: Run, journal: Journal, labels: Labels) -> None:
        """Set the tags that a person gave since the run was last delivered, and delete those that
        they replace. A tag that was delivered stays as somebody has edited it."""
        before = Labels(**journal.delivered(hide(self._uri)).get("labels", {}))
        had, wanted = _label_tags(before), _label_tags(labels)
        for name in (had.keys() - wanted.keys()) & run.data.tags.keys():
            self._client.delete_tag(run.info.run_id, name)
        for name, value in wanted.items():
            if had.get(name) != value != run.data.tags.get(name):
                self._client.set_tag(run.info.run_id, name, value)

    def _find(self, experiment_id: str, key: str) -> Run | None:
        """Return the run with this key. If there are two, because a request was repeated after its
        answer was lost, all but one are deleted."""
        runs = list(self._client.search_runs([experiment_id], f"tags.`key` = '{key}'"))
        runs.sort(key=lambda run: (_DESCRIBED not in run.data.tags, run.info.run_id))
        for double in runs[1:]:
            self._client.delete_run(double.info.run_id)
        return runs[0] if runs else None

    def _create(self, journal: Journal, info: RunInfo, experiment_id: str) -> None:
        parent_id = ""
        if info.parent:
            parent = Journal(journal.run_folder / info.parent, journal.files)
            with parent.delivering():  # several processes may begin with trials of one search
                parent_id = self.get(parent).run_id
        tags = _label_tags(journal.labels()) | _tags(info, parent_id)
        if previous := journal.run_ids():
            tags[PREVIOUS_IDS] = " ".join(previous)
        name = info.label or info.name
        self._client.create_run(experiment_id, journal.started_ms(), tags, name)

    def _describe(self, run_id: str, journal: Journal, info: RunInfo) -> None:
        """Log params, data set and config. May be repeated."""
        shown, rest = split_params(info)
        params = [Param(k, v[:MAX_PARAM_VAL_LENGTH]) for k, v in shown.items()]
        if rest:
            self._client.set_tag(run_id, SETTINGS, rest)
        for start in range(0, len(params), MAX_PARAMS_TAGS_PER_BATCH):
            batch = params[start : start + MAX_PARAMS_TAGS_PER_BATCH]
            self._client.log_batch(run_id, params=batch)
        if info.dataset:
            self._client.log_inputs(run_id, [_dataset(info.dataset)])
        folder = RunFolder(journal.run_folder, journal.files)
        for path in (folder.config, folder.job):
            if journal.files.exists(path):
                self._client.log_artifact(run_id, str(path))
        self._client.set_tag(run_id, _DESCRIBED, "true")

    # -- the experiment -----------------------------------------------------------------------
    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            found = self._client.get_experiment_by_name(name) or self._create_experiment(name)
            if found.lifecycle_stage == LifecycleStage.DELETED:
                self._client.restore_experiment(found.experiment_id)
            self._experiments[name] = found.experiment_id
        return self._experiments[name]

    def _create_experiment(self, name: str) -> Experiment:
        try:
            location = artifact_location(self._uri, self._store, name)
            self._client.create_experiment(name, location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # somebody else was faster
                raise
        made = self._client.get_experiment_by_name(name)
        assert made
        return made


def split_params(info: RunInfo) -> tuple[dict[str, str], str]:
    """Return the params that MLflow's pages show, and the value of the tag that holds the others,
    as JSON; all and "" if a tag cannot hold them."""
    params = {name: str(value) for name, value in info.params.items()}
    if not info.shown:
        return params, ""
    rest = {name: value for name, value in params.items() if name not in info.shown}
    text = json.dumps(rest, sort_keys=True)
    if len(text) > MAX_TAG_VAL_LENGTH:
        return params, ""
    return {name: params[name] for name in info.shown if name in params}, text if rest else ""


def find_run(client: MlflowClient, run_id: str) -> Run | None:
    """Return the run of this id, or the one that had it before it was recorded anew; None if there
    is neither."""
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    experiments = [each.experiment_id for each in client.search_experiments()]
    had_it = f"tags.{PREVIOUS_IDS} LIKE '%{run_id}%'"
    return next(iter(client.search_runs(experiments, had_it)), None)


def _tags(info: RunInfo, parent_id: str) -> dict[str, str]:
    tags = {
        "key": info.key,
        "kind": info.kind,
        "search_id": info.search_id,
        "trial_id": info.trial_id,
        MLFLOW_PARENT_RUN_ID: parent_id,
        MLFLOW_SOURCE_NAME: "genpipe",
        MLFLOW_USER: _user(),
    }
    return {key: value for key, value in {**tags, **info.tags}.items() if value}


def _label_tags(labels: Labels) -> dict[str, str]:
    return {**labels.tags, **({NOTE: labels.note} if labels.note else {})}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container, a number may have no name
        return str(os.getuid())


def _dataset(known: Mapping[str, Any]) -> DatasetInput:
    rest = {key: value for key, value in known.items() if key not in {"name", "digest"}}
    dataset = Dataset(
        name=str(known["name"]),
        digest=str(known["digest"])[:MAX_DATASET_DIGEST_SIZE],
        source_type="genpipe",
        source=json.dumps({"name": known["name"]}),
        profile=json.dumps(rest),
    )
    return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, "training")])


def folder_digest(folder: Path) -> str:
    """Return the digest by which a checkpoint is known: of the names and contents of a folder's
    files."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return whole.hexdigest()[:16]
