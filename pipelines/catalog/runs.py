"""What was recorded, asked for again: runs, the best of them, samples of any."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gen_models.core.errors import InputError, require
from pipelines.evaluation.validation import matching
from pipelines.store.journal import write_whole
from pipelines.tracking import (
    RunRow,
    Tracker,
    browse,
    list_runs,
    resolve_checkpoint,
    tracking_uri,
    undelivered,
)
from pipelines.training.preflight import existing_store
from tune_spaces import space

if TYPE_CHECKING:
    from torch import Tensor

    from gen_models.core.contract import Model
    from pipelines.config.requests import Sample

DELIVER_SECONDS = 20.0


def sample_model(asked: Sample) -> dict[str, Any]:
    """Write a model's samples to a file: a .png picture, or an .npz of arrays: uint8
    N x H x W x C, of points float32 N x 2.

    Raises `InputError`.
    """
    require(asked.num >= 1, "num", asked.num, "an integer of at least 1")
    require(asked.seed >= 0, "seed", asked.seed, "an integer of at least 0")
    named = asked.out.suffix in (".png", ".npz")
    require(named, "out", str(asked.out), "a file name ending in .png or .npz")
    from gen_models.core.checkpoint import load_checkpoint
    from gen_models.core.sampling import sample
    from pipelines.evaluation.images import drawing_of

    with tempfile.TemporaryDirectory() as fetched:
        local = (Path(asked.model) / "model.json").is_file()
        where = "" if local else recorded_at(asked.store, asked.tracking_uri)
        folder = resolve_checkpoint(where, asked.model, Path(fetched))
        loaded = load_checkpoint(folder)
    labels = _classes(loaded.model, asked.labels)
    images = sample(loaded.model, loaded.networks, asked.num, asked.seed, labels=labels)
    draw, picture = drawing_of(loaded.model), asked.out.suffix == ".png"
    content = draw.samples(images) if picture else _npz(images=draw.array(images))
    try:
        write_whole(asked.out, content)
    except OSError as error:
        raise InputError(
            f"out = {str(asked.out)!r}: expected a file that can be written: {error}"
        ) from error
    path = str(asked.out.absolute())
    return {"path": path, "num": asked.num, "seed": asked.seed, "family": loaded.family}


def runs(store: Path, uri: str | None, experiment: str | None, num: int) -> list[dict[str, Any]]:
    """What is recorded, newest first, at most `num`; delivers first what MLflow lacks."""
    require(num >= 1, "num", num, "an integer of at least 1")
    found = _delivered(store, uri)
    return [_row(row, row.tags.get("metric", "")) for row in list_runs(found, experiment)[:num]]


def best(
    family: str, store: Path, uri: str | None, data: str | None, metric: str | None, num: int
) -> dict[str, Any]:
    """The runs and trials of a family, ranked by their best epoch; of a config that was confirmed,
    by its mean over the seeds, and not by the luckiest of them.

    Only runs on one data set are comparable: without `data`, that of the newest run. Raises
    `InputError` where none is recorded.
    """
    require(num >= 1, "num", num, "an integer of at least 1")
    wanted = f"best/{metric or space(family).metric}"
    every = list_runs(_delivered(store, uri), tags={"family": family})
    confirmations = {row.search_id for row in every if row.kind == "confirmation"}
    rows = [
        row
        for row in every
        if row.kind in ("run", "trial")
        and row.search_id not in confirmations
        and matching(wanted, row.metrics)
    ]
    chosen = data or (rows[0].params["data"] if rows else "")
    rows = [row for row in rows if row.params["data"] == chosen]
    if not rows:
        on = f" on {data}" if data else ""
        name = wanted.removeprefix("best/")
        raise InputError(f"no run of {family}{on} with {name} is recorded in {store}")
    metric = matching(wanted, rows[0].metrics)[0].removeprefix("best/")
    rows = [row for row in rows if _value(row, metric) is not None]
    mode = _mode(rows, metric)
    ranking = sorted(rows, key=lambda r: (-1 if mode == "max" else 1) * (_value(r, metric) or 0.0))
    return {
        "metric": metric,
        "mode": mode,
        "data": chosen,
        "ranking": [_row(row, metric) for row in ranking[:num]],
        "rerun": ranking[0].tags["rerun"],
    }


def serve(store: Path, uri: str | None, port: int) -> int:
    """MLflow's page, until it is interrupted."""
    require(0 < port < 65536, "port", port, "a number from 1 to 65535")
    browse(_delivered(store, uri), store, port)
    return 0


def recorded_at(store: Path, uri: str | None) -> str:
    """The tracking URI of what is recorded already. Raises `InputError` where nothing is."""
    elsewhere = uri or os.environ.get("MLFLOW_TRACKING_URI")
    return tracking_uri(store if elsewhere else existing_store(store), uri)


def _delivered(store: Path, uri: str | None) -> str:
    """The tracking URI, once MLflow was given what it lacks of the store's ended runs."""
    found = recorded_at(store, uri)
    with Tracker(found, store.absolute()) as tracker:
        for journal in undelivered(store, found):
            tracker.sync(journal)
        tracker.flush(DELIVER_SECONDS)
    return found


def _mode(rows: list[RunRow], metric: str) -> str:
    own = [row.tags["mode"] for row in rows if row.tags.get("metric") == metric]
    return own[0] if own else "min"


def _value(row: RunRow, metric: str) -> float | None:
    """Of the best epoch; of a config that was confirmed by this metric, and of its confirmation,
    the mean over seeds."""
    best = row.metrics.get(f"best/{metric}")
    return row.metrics.get("confirm/mean", best) if row.tags.get("metric") == metric else best


def _row(row: RunRow, metric: str) -> dict[str, Any]:
    return {
        "run_id": row.run_id,
        "name": row.name,
        "experiment": row.experiment,
        "kind": row.kind,
        "search_id": row.search_id,
        "trial_id": row.trial_id,
        "status": row.status,
        "outcome": row.outcome or row.status.lower(),
        "epoch": row.epoch,
        "metric": metric,
        "value": _value(row, metric),
        "params": dict(row.params),
        "metrics": {k: v for k, v in row.metrics.items() if k.startswith("best/")},
        "rerun": row.tags.get("rerun", ""),
        "started": row.start_time.isoformat(),
    }


def _classes(model: Model, labels: Sequence[int]) -> Tensor | None:
    """What is asked for, as a class-conditional model takes it."""
    if not labels:
        return None
    import torch

    from gen_models.core.contract import is_conditional

    alone = "none, for the model is not class-conditional"
    require(is_conditional(model), "labels", tuple(labels), alone)
    most = model.spec.num_classes - 1
    require(0 <= min(labels) <= max(labels) <= most, "labels", tuple(labels), f"0 to {most}")
    return torch.tensor(labels)


def _npz(images: np.ndarray[Any, Any]) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, images=images)
    return out.getvalue()
