"""One run's journal -> one MLflow run: every point once, whatever was cut short before.

MLflow lets nobody choose a run's id, so a run is found by the tag `key`. What it holds is asked
of MLflow itself, once per run and again after every error, for a write may have succeeded though
its answer was lost. Three things make a repetition harmless:

- the metric `epoch` is the watermark, and the last of an epoch's points. A batch is written whole
  or not at all, so no epoch at or below the watermark lacks a point;
- a point's time is that of its file in the journal. MLflow keeps one of two points that are equal
  in key, step, time and value, which covers a request that MLflow's own client repeats;
- an epoch's pictures are logged before its points, and only those that are not listed yet.
"""

from __future__ import annotations

import getpass
import json
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlflow.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    InputTag,
    LifecycleStage,
    Metric,
    Param,
    Run,
    RunStatus,
    RunTag,
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
    MAX_METRICS_PER_BATCH,
    MAX_PARAM_VAL_LENGTH,
    MAX_PARAMS_TAGS_PER_BATCH,
)

from pipelines.journal import Ending, Identity, Journal, Outcome, Report
from pipelines.tracking.models import deliver_model
from pipelines.tracking.pictures import Pictures
from pipelines.tracking.store import artifact_location, connect, without_password
from pipelines.tracking.tracker import LoadSampler

STATUS: Mapping[Ending, str] = {
    "completed": "FINISHED",
    "stopped_early": "KILLED",
    "interrupted": "KILLED",
    "diverged": "FAILED",
    "failed": "FAILED",
}
EPOCH = "epoch"
"""The metric that is the watermark."""

_DESCRIBED = "described"
"""The tag that says that params and data set are complete."""
_log = logging.getLogger(__name__)


@dataclass
class _Known:
    """What MLflow holds of a run, as of its last answer."""

    run_id: str
    experiment_id: str
    epoch: int
    running: bool
    pictures: Pictures


class Delivery:
    """Delivers journals; remembers what MLflow holds until an error makes that doubtful."""

    def __init__(
        self, uri: str, store: Path | None = None, load_sampler: LoadSampler | None = None
    ) -> None:
        self._uri, self._store, self._load_sampler = uri, store, load_sampler
        self._client = connect(uri)
        self._runs: dict[str, _Known] = {}
        self._experiments: dict[str, str] = {}

    def deliver(self, journal: Journal, upto: int | None = None) -> None:
        """Bring MLflow up to the journal: to the epoch `upto`, or to its end if it has ended.

        May be repeated. Raises what MLflow raises; then nothing is lost and nothing is double
        when it is called again.
        """
        outcome = journal.outcome()
        if outcome and self._settled(journal, outcome):
            return
        try:
            run = self._run(journal)
            if run.running != (outcome is None) and not outcome:
                self._reopen(run)
            self._deliver_reports(run, journal, outcome.last_epoch if outcome else upto)
            model = self._close(run, journal, outcome) if outcome else {}
        except Exception:
            self._runs.clear()
            self._experiments.clear()
            raise
        journal.mark_delivered(
            {
                "uri": without_password(self._uri),
                "run_id": run.run_id,
                "experiment_id": run.experiment_id,
                "epoch": run.epoch,
                "outcome": asdict(outcome) if outcome else None,
                **model,
            }
        )

    def _settled(self, journal: Journal, outcome: Outcome) -> bool:
        """Whether this very outcome was delivered, to a run that MLflow still has."""
        delivered = journal.delivered()
        here = delivered.get("uri") == without_password(self._uri)
        if not here or delivered["outcome"] != asdict(outcome):
            return False
        try:
            info = self._client.get_run(delivered["run_id"]).info
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return bool(info.lifecycle_stage == LifecycleStage.ACTIVE)

    # -- the run ------------------------------------------------------------------------------
    def _run(self, journal: Journal) -> _Known:
        folder = os.path.abspath(journal.run_folder)
        if folder not in self._runs:
            self._runs[folder] = self._find_or_create(journal)
        return self._runs[folder]

    def _find_or_create(self, journal: Journal) -> _Known:
        identity = journal.identity()
        if not identity:
            raise ValueError(f"{journal.folder}: no identity.json")
        experiment_id = self._experiment(identity.experiment)
        run = self._found(experiment_id, identity.key)
        if not run:
            parent = Journal(journal.run_folder / identity.parent) if identity.parent else None
            parent_id = self._run(parent).run_id if parent else ""
            start = _written(journal.folder / "identity.json")
            self._client.create_run(
                experiment_id, start, _tags(identity, parent_id), identity.name
            )
            run = self._found(experiment_id, identity.key)  # a repeated request makes two
            assert run
        if _DESCRIBED not in run.data.tags:
            self._describe(run.info.run_id, identity)
        return _Known(
            run.info.run_id,
            experiment_id,
            int(run.data.metrics.get(EPOCH, -1)),
            run.info.status == RunStatus.to_string(RunStatus.RUNNING),
            Pictures(self._client, run.info.run_id),
        )

    def _found(self, experiment_id: str, key: str) -> Run | None:
        """The run of this key; the first, should there be two, and the others are deleted."""
        runs = list(self._client.search_runs([experiment_id], f"tags.`key` = '{key}'"))
        runs.sort(key=lambda run: (_DESCRIBED not in run.data.tags, run.info.run_id))
        for double in runs[1:]:
            self._client.delete_run(double.info.run_id)
        return runs[0] if runs else None

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            self._experiments[name] = self._find_or_create_experiment(name).experiment_id
        return self._experiments[name]

    def _find_or_create_experiment(self, name: str) -> Experiment:
        found = self._client.get_experiment_by_name(name)
        if not found:
            try:
                self._client.create_experiment(
                    name, artifact_location(self._uri, self._store, name)
                )
            except MlflowException as error:  # somebody else was faster
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = self._client.get_experiment_by_name(name)
            assert found
        if found.lifecycle_stage == LifecycleStage.DELETED:
            self._client.restore_experiment(found.experiment_id)
        return found

    def _describe(self, run_id: str, identity: Identity) -> None:
        """Log params and data set; may be repeated."""
        params = [Param(k, str(v)[:MAX_PARAM_VAL_LENGTH]) for k, v in identity.params.items()]
        for start in range(0, len(params), MAX_PARAMS_TAGS_PER_BATCH):
            batch = params[start : start + MAX_PARAMS_TAGS_PER_BATCH]
            self._client.log_batch(run_id, params=batch)
        if identity.dataset:
            self._client.log_inputs(run_id, [_dataset(identity.dataset)])
        self._client.set_tag(run_id, _DESCRIBED, "true")

    def _reopen(self, run: _Known) -> None:
        """A closed run goes on. MLflow keeps its end time until it is closed again."""
        self._client.delete_tag(run.run_id, "outcome")
        self._client.update_run(run.run_id, status="RUNNING")
        run.running = True

    # -- its reports --------------------------------------------------------------------------
    def _deliver_reports(self, run: _Known, journal: Journal, upto: int | None) -> None:
        batch: list[Metric] = []
        for report in journal.reports(run.epoch, upto):
            at = _written(journal.reports_folder / f"{report.epoch:06d}.json")
            run.pictures.deliver(report, at)
            points = _points(report, at)
            if len(batch) + len(points) > MAX_METRICS_PER_BATCH:
                self._log(run, batch)
                batch = []
            batch += points
        self._log(run, batch)

    def _log(self, run: _Known, points: list[Metric]) -> None:
        for start in range(0, len(points), MAX_METRICS_PER_BATCH):
            batch = points[start : start + MAX_METRICS_PER_BATCH]
            self._client.log_batch(run.run_id, metrics=batch)
        if points:
            run.epoch = points[-1].step

    # -- its end ------------------------------------------------------------------------------
    def _close(self, run: _Known, journal: Journal, outcome: Outcome) -> dict[str, Any]:
        """The run's end, and its model; what `delivered.json` says of the model."""
        at = _written(journal.folder / "outcome.json")
        data = self._client.get_run(run.run_id).data
        summary = {k: v for k, v in outcome.summary.items() if data.metrics.get(k) != v}
        metrics = _metrics(summary, at, max(outcome.last_epoch, 0))
        tags = [RunTag(k, str(v)) for k, v in {**outcome.tags, "outcome": outcome.ending}.items()]
        self._client.log_batch(run.run_id, metrics=metrics, tags=tags)
        for folder, path in outcome.artifacts.items():
            self._log_artifact(run.run_id, Path(path), folder)
        self._client.set_terminated(run.run_id, STATUS[outcome.ending], end_time=at)
        run.running = False
        if not outcome.checkpoint:
            return {}
        identity = journal.identity()
        assert identity
        step = int(outcome.tags.get("best_epoch", outcome.last_epoch))
        best = next(journal.reports(step - 1, step), None)
        at = _written(journal.reports_folder / f"{step:06d}.json") if best else at
        metrics = _points(best, at) if best else []
        return deliver_model(
            self._client, run.run_id, identity, outcome, step, metrics, self._load_sampler
        )

    def _log_artifact(self, run_id: str, path: Path, folder: str) -> None:
        if path.is_dir():
            self._client.log_artifacts(run_id, str(path), folder)
        elif path.exists():
            self._client.log_artifact(run_id, str(path), folder)
        else:
            _log.warning("%s is gone: MLflow's run %s goes without", path, run_id)


def _written(path: Path) -> int:
    """When a file was written, in milliseconds."""
    return path.stat().st_mtime_ns // 1_000_000


def _points(report: Report, at: int) -> list[Metric]:
    """An epoch's points; the watermark comes last."""
    points = _metrics(report.metrics, at, report.epoch)
    return [*points, Metric(EPOCH, float(report.epoch), at, report.epoch)]


def _metrics(values: Mapping[str, float], at: int, step: int) -> list[Metric]:
    """The finite ones: MLflow would store an infinity as 1.8e308."""
    return [
        Metric(key, float(value), at, step)
        for key, value in values.items()
        if math.isfinite(value) and key != EPOCH
    ]


def _tags(identity: Identity, parent_id: str) -> dict[str, str]:
    tags = {
        "key": identity.key,
        "kind": identity.kind,
        "search_id": identity.search_id,
        "trial_id": identity.trial_id,
        MLFLOW_PARENT_RUN_ID: parent_id,
        MLFLOW_SOURCE_NAME: "genpipe",
        MLFLOW_USER: _user(),
    }
    return {key: value for key, value in {**tags, **identity.tags}.items() if value}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
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
