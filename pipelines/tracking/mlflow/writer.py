"""Delivers journals to MLflow: one run per journal, every point once, whatever was interrupted.

The writer asks MLflow itself what it holds, once per run and again after every error, because a
write may have succeeded although its answer was lost. Three things make a repetition harmless:

- The metric `system/epoch` is the watermark, and the last of an epoch's points. A batch is written
  whole or not at all, so no epoch at or below the watermark lacks a point.
- A point has the time of its file in the journal. MLflow keeps one of two points that are equal in
  key, step, time and value, which covers a request that MLflow's own client repeats.
- An epoch's pictures are logged before its points, and only those that are not listed yet.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlflow.entities import LifecycleStage, Metric, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import MAX_METRICS_PER_BATCH

from pipelines.store.journal import (
    EpochRecord,
    EvaluationJournal,
    Journal,
    Outcome,
    RunStatus,
)
from pipelines.store.layout import Store
from pipelines.store.secrets import hide
from pipelines.tracking.mlflow.connection import connect, make_tables
from pipelines.tracking.mlflow.models import (
    CheckpointModel,
    LoadSampler,
    logged_model,
)
from pipelines.tracking.mlflow.pages import Pages
from pipelines.tracking.mlflow.runs import KnownRun, Runs, find_run
from pipelines.tracking.rows import EPOCH, WATERMARKS

STATUS: Mapping[RunStatus, str] = {
    "completed": "FINISHED",
    "stopped_early": "FINISHED",
    "interrupted": "KILLED",
    "superseded": "KILLED",
    "diverged": "FAILED",
    "failed": "FAILED",
}
"""MLflow's status of a run that ended so. Its pages paint KILLED as red as FAILED, so a trial that
was stopped early is FINISHED; the tag `outcome` tells them apart."""
_DIVERGED = "diverged"
_EVALUATION = "evaluation"
"""Artifact folder of an evaluation's pictures."""
_log = logging.getLogger(__name__)


class MlflowWriter:
    """A `pipelines.tracking.base.RunWriter`. It remembers what MLflow holds until an error makes
    that doubtful. `load_sampler` exports checkpoints; by default genpipe's own."""

    def __init__(self, uri: str, store: Store, load_sampler: LoadSampler | None = None) -> None:
        self._uri, self._store, self._load_sampler = uri, store, load_sampler
        self._here = hide(uri)
        self._marked: dict[Path, dict[str, Any]] = {}
        """What `delivered.json` of a journal held when this writer last wrote it."""
        self._client = connect(uri)
        self._runs = Runs(self._client, uri, store)
        self._pages = Pages(self._client, self._here)

    def prepare(self) -> None:
        """Create a new database's tables."""
        make_tables(self._uri)

    def deliver(self, journal: Journal, upto: int | None = None, *, anew: bool = False) -> None:
        """Bring MLflow up to the journal: to the epoch `upto`, or to its end if it has ended.
        `anew`: compare with MLflow itself, as `pipelines.tracking.base.RunWriter` says.

        May be called again after an error: it loses and repeats nothing. Raises what MLflow
        raises.
        """
        with journal.delivering():
            if journal.delivered(self._here) != self._marked.get(journal.folder):
                self._runs.forget_run(journal)  # another process was here
            self._deliver(journal, upto, anew)
            self._marked[journal.folder] = journal.delivered(self._here)

    def _deliver(self, journal: Journal, upto: int | None, anew: bool) -> None:
        outcome = journal.outcome()
        if anew and self._is_deleted(journal):
            return
        if outcome and not anew and self._is_delivered(journal, outcome):
            return
        try:
            run = self._runs.get(journal)
            if not outcome and not run.running:
                self._reopen(run)
            self._deliver_epochs(run, journal, outcome.last_epoch if outcome else upto)
            model = self._close(run, journal, outcome) if outcome else {}
            self._pages.show(run, journal, outcome)
        except Exception:
            self._runs.forget()
            raise
        previous = [each for each in journal.run_ids() if each != run.run_id]
        delivered = {
            "uri": self._here,
            "run_id": run.run_id,
            "experiment_id": run.experiment_id,
            "epoch": run.epoch,
            "outcome": asdict(outcome) if outcome else None,
        }
        if labels := run.labels.as_content():
            delivered["labels"] = labels
        history = {"previous_run_ids": previous} if previous else {}
        journal.mark_delivered(delivered | history | model)

    def deliver_evaluation(self, journal: EvaluationJournal, *, anew: bool = False) -> None:
        """Add an evaluation's metrics, tags and pictures to its run, and the metrics to the model
        that was logged of it. Of values of one name the latest counts."""
        with journal.delivering():
            if anew or not journal.is_delivered(self._here):
                self._deliver_evaluation(journal)

    def _deliver_evaluation(self, journal: EvaluationJournal) -> None:
        record = journal.record()
        if record is None:
            return
        run = find_run(self._client, record.run_id)
        if run is None:
            raise LookupError(f"MLflow has no run {record.run_id}")
        run_id = run.info.run_id
        at = journal.recorded_ms()  # so that a point which is delivered again is the same point
        epoch = int(run.data.metrics.get("best/epoch", 0))
        known = run.data.metrics
        new = {name: value for name, value in record.metrics.items() if known.get(name) != value}
        model = logged_model(self._client, run)
        shown_by = model.model_id if model else None
        points = [Metric(k, value, at, epoch, model_id=shown_by) for k, value in new.items()]
        tags = [RunTag(name, value) for name, value in record.tags.items()]
        self._client.log_batch(run_id, metrics=points, tags=tags)
        for path in record.pictures.values():
            self._client.log_artifact(run_id, str(path), _EVALUATION)
        journal.mark_delivered(self._here)

    def _is_delivered(self, journal: Journal, outcome: Outcome) -> bool:
        """Return whether this very outcome and the run's labels were delivered, to a run that
        MLflow still has."""
        delivered = journal.delivered(self._here)
        if not delivered or delivered["outcome"] != asdict(outcome):
            return False
        if delivered.get("labels", {}) != journal.labels().as_content():
            return False
        if "model_error" in delivered:
            return False  # the export may succeed now
        return self._stage(delivered["run_id"]) == LifecycleStage.ACTIVE

    def _is_deleted(self, journal: Journal) -> bool:
        """Return whether somebody has deleted the run in MLflow."""
        delivered = journal.delivered(self._here)
        return bool(delivered) and self._stage(delivered["run_id"]) == LifecycleStage.DELETED

    def _stage(self, run_id: str) -> str | None:
        """Return a run's lifecycle stage; None if MLflow does not have it."""
        try:
            return str(self._client.get_run(run_id).info.lifecycle_stage)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def _reopen(self, run: KnownRun) -> None:
        """Set a closed run RUNNING again. MLflow keeps its end time until it is closed anew."""
        self._client.set_tag(run.run_id, "outcome", "")
        self._client.update_run(run.run_id, status="RUNNING")
        run.running = True

    # -- epochs -------------------------------------------------------------------------------
    def _deliver_epochs(self, run: KnownRun, journal: Journal, upto: int | None) -> None:
        batch: list[Metric] = []
        for record in journal.records(run.epoch, upto):
            at = journal.files.modified_ms(journal.record_file(record.epoch))
            run.pictures.deliver(journal, record, at)
            points = _points(record, at)
            if len(batch) + len(points) > MAX_METRICS_PER_BATCH:
                self._log(run, batch)
                batch = []
            batch += points
        self._log(run, batch)

    def _log(self, run: KnownRun, points: list[Metric]) -> None:
        for start in range(0, len(points), MAX_METRICS_PER_BATCH):
            batch = points[start : start + MAX_METRICS_PER_BATCH]
            self._client.log_batch(run.run_id, metrics=batch)
        if points:
            run.epoch = points[-1].step

    # -- the end ------------------------------------------------------------------------------
    def _close(self, run: KnownRun, journal: Journal, outcome: Outcome) -> dict[str, Any]:
        """Log the outcome and close the run; return what was delivered of its model."""
        at = journal.files.modified_ms(journal.outcome_file)
        known = self._client.get_run(run.run_id).data.metrics
        summary = {key: v for key, v in outcome.summary.items() if known.get(key) != v}
        metrics = _metrics(summary, at, max(outcome.last_epoch, 0))
        tags = [RunTag(k, str(v)) for k, v in {**outcome.tags, "outcome": outcome.ending}.items()]
        self._client.log_batch(run.run_id, metrics=metrics, tags=tags)
        for folder, path in outcome.artifacts.items():
            self._log_artifact(run.run_id, journal.run_folder / path, folder)
        self._client.set_terminated(run.run_id, STATUS[outcome.ending], end_time=at)
        run.running = False
        return self._deliver_model(run, journal, outcome) if outcome.checkpoint else {}

    def _log_artifact(self, run_id: str, path: Path, folder: str) -> None:
        if path.is_dir():
            self._client.log_artifacts(run_id, str(path), folder)
        elif path.exists():
            self._client.log_artifact(run_id, str(path), folder)
        else:
            _log.warning("%s is missing: MLflow's run %s has no copy of it", path, run_id)

    def _deliver_model(self, run: KnownRun, journal: Journal, outcome: Outcome) -> dict[str, Any]:
        info = journal.required_info()
        best = int(outcome.tags.get("best_epoch", outcome.last_epoch))
        model = CheckpointModel(self._client, run, info, outcome, journal.run_folder)
        return model.deliver(best, self._load_sampler, self._store.claiming_alias())


def _points(record: EpochRecord, at: int) -> list[Metric]:
    """Return an epoch's points, the watermark last. Only an epoch that diverged says so: of the
    others the chart would be a flat line."""
    values = {k: v for k, v in record.metrics.items() if k != _DIVERGED or v}
    points = _metrics(values, at, record.epoch)
    return [*points, Metric(EPOCH, float(record.epoch), at, record.epoch)]


def _metrics(values: Mapping[str, float], at: int, step: int) -> list[Metric]:
    """Return the finite values as points: MLflow would store an infinity as 1.8e308."""
    return [
        Metric(key, float(value), at, step)
        for key, value in values.items()
        if math.isfinite(value) and key not in WATERMARKS
    ]
