"""What MLflow holds of a run: a projection of the run's journal, and the way back from it.

The journal on disk is the truth (`pipelines.store.journal`). One process, the one that runs the
command, reads journals and tells MLflow, so an outage can delay what MLflow shows and nothing
else. This package is the only part of the project that imports mlflow, which takes seconds; it
does so when the first word is spoken and not when this package is imported.

    store       where runs are recorded, and that it answers
    tracker     the queue and its thread: `Tracker`
    delivery    one run's journal -> one MLflow run, exactly once
    runs        the run itself: found, or made and described
    pictures    its pictures, for MLflow's image grid
    models      its checkpoint -> a logged model, a registered version, the alias `champion`
    reading     runs, back out of MLflow
    checkpoints a model's run, and its checkpoint, from this machine or out of MLflow
    page        MLflow's own web page
    lineage     which code ran, and with what
    evaluation  what the test split says of a run that has ended
"""

import os

from pipelines.tracking.mlflow.checkpoints import resolve_checkpoint, resolve_run
from pipelines.tracking.mlflow.connection import tracking_uri
from pipelines.tracking.mlflow.evaluation import record_evaluation
from pipelines.tracking.mlflow.reader import RunRow, list_runs
from pipelines.tracking.mlflow.server import browse
from pipelines.tracking.provenance import lineage
from pipelines.tracking.queue import Tracker, undelivered

__all__ = [
    "RunRow",
    "Tracker",
    "browse",
    "lineage",
    "list_runs",
    "record_evaluation",
    "resolve_checkpoint",
    "resolve_run",
    "tracking_uri",
    "undelivered",
]

_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the tracker retries for as long as it lives
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
for _name, _value in _QUIET.items():  # read when mlflow is imported, which is always later
    os.environ.setdefault(_name, _value)
