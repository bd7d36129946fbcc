"""What is found out of a run after it has ended, told to MLflow at once: who asks is waiting."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.tracking.mlflow.connection import connect

if TYPE_CHECKING:
    from pipelines.evaluation.held_out import Findings

_FOLDER = "evaluation"


def record_evaluation(uri: str, run_id: str, found: Findings) -> None:
    """Add metrics, tags and PNG files, by name, to a run. Told again, the newest counts."""
    from mlflow.entities import Metric, RunTag

    client, now = connect(uri), time.time_ns() // 1_000_000
    epoch = int(client.get_run(run_id).data.metrics.get("best/epoch", 0))
    points = [Metric(name, value, now, epoch) for name, value in found.metrics.items()]
    own = [RunTag(name, value) for name, value in found.tags.items()]
    client.log_batch(run_id, metrics=points, tags=own)
    with tempfile.TemporaryDirectory() as folder:
        for name, png in found.pictures.items():
            path = Path(folder) / f"{name}.png"
            path.write_bytes(png)
            client.log_artifact(run_id, str(path), _FOLDER)
