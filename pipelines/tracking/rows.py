"""Makes rows of what a tracking system holds of runs. Imports no client, which takes seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime

from gen_models.core.config import parse_object
from gen_models.core.errors import InputError
from pipelines.tracking.base import RunRow

NOTE = "note"
"""The tag with the note that a person wrote of a run."""
SETTINGS = "settings"
"""The tag of a run with the settings that are no parameters of it, as JSON."""


EPOCH = "system/epoch"
"""The metric that is the watermark of a run: no epoch at or below it lacks a point. It is a
straight line, so it is among MLflow's system metrics, on a page of their own."""
_EPOCH_BEFORE = "epoch"
"""Its name up to version 0.2."""
WATERMARKS = (EPOCH, _EPOCH_BEFORE)


def delivered_epoch(metrics: Mapping[str, float]) -> int | None:
    """Return the last epoch that a tracking system holds of a run; None before the first."""
    known = [metrics[name] for name in WATERMARKS if name in metrics]
    epochs = [int(value) for value in known if math.isfinite(value)]  # not so in a run of others
    return max(epochs, default=None)


def make_row(
    run_id: str,
    name: str,
    experiment: str,
    status: str,
    start_time: int,
    metrics: Mapping[str, float],
    params: Mapping[str, str],
    tags: Mapping[str, str],
) -> RunRow:
    """Return a run as a row, with the settings that are no parameters in MLflow. A trial and a
    search are known by their ids, whatever MLflow's pages call them."""
    kind = tags.get("kind", "")
    trial_id, search_id = tags.get("trial_id", ""), tags.get("search_id", "")
    own = {"trial": trial_id, "search": search_id, "confirmation": search_id}
    return RunRow(
        run_id=run_id,
        name=own.get(kind) or name,
        experiment=experiment,
        kind=kind,
        search_id=search_id,
        trial_id=trial_id,
        status=status,
        outcome=tags.get("outcome", ""),
        epoch=0 if kind in ("search", "confirmation") else delivered_epoch(metrics) or 0,
        metrics=dict(metrics),
        params={**_settings(tags), **params},
        tags=dict(tags),
        start_time=datetime.fromtimestamp(start_time / 1000).astimezone(),
    )


def _settings(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that are a tag; {} if it is not ours."""
    try:
        known = parse_object(tags.get(SETTINGS, "{}"), SETTINGS)
    except InputError:
        return {}
    return {name: str(value) for name, value in known.items()}
