"""One run's journal -> one MLflow run: every point once, whatever was cut short before.

What MLflow holds is asked of MLflow itself, once per run and again after every error, for a
write may have succeeded though its answer was lost. Three things make a repetition harmless:

- the metric `epoch` is the watermark, and the last of an epoch's points. A batch is written whole
  or not at all, so no epoch at or below the watermark lacks a point;
- a point's time is that of its file in the journal. MLflow keeps one of two points that are equal
  in key, step, time and value, which covers a request that MLflow's own client repeats;
- an epoch's pictures are logged before its points, and only those that are not listed yet.
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

from pipelines.store.journal import Ending, Journal, Outcome, Report
from pipelines.tracking.mlflow.connection import connect, without_password
from pipelines.tracking.mlflow.models import CheckpointModel
from pipelines.tracking.mlflow.runs import EPOCH, KnownRun, Runs, written_at
from pipelines.tracking.queue import LoadSampler

STATUS: Mapping[Ending, str] = {
    "completed": "FINISHED",
    "stopped_early": "KILLED",
    "interrupted": "KILLED",
    "superseded": "KILLED",
    "diverged": "FAILED",
    "failed": "FAILED",
}
_log = logging.getLogger(__name__)


class Delivery:
    """Delivers journals; remembers what MLflow holds until an error makes that doubtful."""

    def __init__(
        self, uri: str, store: Path | None = None, load_sampler: LoadSampler | None = None
    ) -> None:
        self._uri, self._load_sampler = uri, load_sampler
        self._client = connect(uri)
        self._runs = Runs(self._client, uri, store)

    def deliver(self, journal: Journal, upto: int | None = None) -> None:
        """Bring MLflow up to the journal: to the epoch `upto`, or to its end if it has ended.

        May be repeated. Raises what MLflow raises; called again then, it loses and doubles
        nothing.
        """
        outcome = journal.outcome()
        if outcome and self._settled(journal, outcome):
            return
        try:
            run = self._runs.get(journal)
            if not outcome and not run.running:
                self._reopen(run)
            self._deliver_reports(run, journal, outcome.last_epoch if outcome else upto)
            model = self._close(run, journal, outcome) if outcome else {}
        except Exception:
            self._runs.forget()
            raise
        delivered = {
            "uri": without_password(self._uri),
            "run_id": run.run_id,
            "experiment_id": run.experiment_id,
            "epoch": run.epoch,
            "outcome": asdict(outcome) if outcome else None,
        }
        journal.mark_delivered(delivered | model)

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

    def _reopen(self, run: KnownRun) -> None:
        """A closed run goes on. MLflow keeps its end time until it is closed again."""
        self._client.set_tag(run.run_id, "outcome", "")
        self._client.update_run(run.run_id, status="RUNNING")
        run.running = True

    # -- reports ------------------------------------------------------------------------------
    def _deliver_reports(self, run: KnownRun, journal: Journal, upto: int | None) -> None:
        batch: list[Metric] = []
        for report in journal.reports(run.epoch, upto):
            at = written_at(journal.reports_folder / f"{report.epoch:06d}.json")
            run.pictures.deliver(report, at)
            points = _points(report, at)
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
        """Tell MLflow how the run ended; what there is to say of its model."""
        at = written_at(journal.folder / "outcome.json")
        known = self._client.get_run(run.run_id).data.metrics
        summary = {key: v for key, v in outcome.summary.items() if known.get(key) != v}
        metrics = _metrics(summary, at, max(outcome.last_epoch, 0))
        tags = [RunTag(k, str(v)) for k, v in {**outcome.tags, "outcome": outcome.ending}.items()]
        self._client.log_batch(run.run_id, metrics=metrics, tags=tags)
        for folder, path in outcome.artifacts.items():
            self._log_artifact(run.run_id, Path(path), folder)
        self._client.set_terminated(run.run_id, STATUS[outcome.ending], end_time=at)
        run.running = False
        return self._deliver_model(run, journal, outcome) if outcome.checkpoint else {}

    def _log_artifact(self, run_id: str, path: Path, folder: str) -> None:
        if path.is_dir():
            self._client.log_artifacts(run_id, str(path), folder)
        elif path.exists():
            self._client.log_artifact(run_id, str(path), folder)
        else:
            _log.warning("%s is gone: MLflow's run %s goes without", path, run_id)

    def _deliver_model(self, run: KnownRun, journal: Journal, outcome: Outcome) -> dict[str, Any]:
        identity = journal.identity()
        assert identity
        best = int(outcome.tags.get("best_epoch", outcome.last_epoch))
        return CheckpointModel(self._client, run, identity, outcome).deliver(
            best, self._load_sampler
        )


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
