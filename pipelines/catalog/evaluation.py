"""Evaluation of a recorded model on the test split: the numbers to report of it."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import torch

from gen_models.core.checkpoint import Checkpoint
from gen_models.core.digest import weights_digest
from gen_models.core.errors import require
from pipelines.catalog.models import fetch_checkpoint, reading
from pipelines.cluster.process import restored_process
from pipelines.cluster.resources import check_machine, uses_gpu
from pipelines.config.evaluation import HeldOutConfig
from pipelines.config.run import Device, Features
from pipelines.evaluation.held_out import (
    HeldOutResults,
    HeldOutTask,
    evaluate_held_out,
    make_task,
)
from pipelines.report.console import ensure_logging
from pipelines.report.results import EvaluationResult
from pipelines.store.journal import EVALUATED, EvaluationJournal
from pipelines.store.layout import RunFolder, Store
from pipelines.store.lease import holding
from pipelines.tracking.base import recorded_uri
from pipelines.tracking.queue import open_tracker
from pipelines.training.preflight import load_data, require_same_data, with_data

_BIASED_BELOW = 2048
_log = logging.getLogger(__name__)


@restored_process()
def evaluate(
    model: str,
    *,
    num: int = 10_000,
    importance_samples: int = 5_000,
    images: int = 1_000,
    features: Features | None = None,
    data: str | None = None,
    data_root: str | Path | None = None,
    download: bool = False,
    device: Device = "auto",
    num_workers: int = 1,
    address: str | None = None,
    store: str | Path | None = None,
    tracking_uri: str | None = None,
) -> EvaluationResult:
    """Evaluate a recorded model on the test split, and record the results with its run.

    `model`: a run's id or name, a trial's, `NAME@champion` or `models:/NAME/VERSION`. The results
    are written to the store first and then delivered to MLflow, so an outage of MLflow loses
    nothing. Raises `InputError` if there is no such run, if its data set has changed, or if
    workers of another command evaluate it.

    >>> import genpipe
    >>> genpipe.evaluate("vae-digits@champion", num=10_000, store="runs").metrics
    """
    ensure_logging()
    config = HeldOutConfig(num=num, importance_samples=importance_samples, images=images)
    require(num_workers >= 1, "num_workers", num_workers, "an integer of at least 1")
    check_machine(address, device, num_workers)
    place = Store.at(store)
    uri = recorded_uri(place, tracking_uri)
    with reading(place, uri) as reader:
        row = reader.run(model)
        alone = f"a run or a trial, and not a {row.kind or 'run of another program'}"
        require(row.kind in ("run", "trial"), "model", model, alone)
        run = with_data(reader.config(row), data, data_root, download)
        run = replace(run, features=features or run.features)
        dataset = load_data(run)
        require_same_data(run, dataset, row.tags.get("data_digest", ""), row.name)
        checkpoint = fetch_checkpoint(reader, model)
    task = make_task(config, checkpoint, dataset, place, run.features, run.download)
    journal = place.evaluation(row.run_id)
    results = _run(task, place, journal, device, num_workers, address)
    tags = {**results.tags, EVALUATED: _digest(checkpoint)}
    journal.write(row.run_id, results.metrics, tags, results.pictures)
    with open_tracker(uri, place) as tracker:
        tracker.sync(journal)
        tracker.finish()
    return EvaluationResult(
        run_id=row.run_id,
        name=row.name,
        metrics=dict(results.metrics),
        tags=tags,
        pictures={key: str(journal.picture(key)) for key in results.pictures},
    )


def _digest(checkpoint: Checkpoint) -> str:
    """Return a digest of a checkpoint's weights."""
    networks = {name: network.state_dict() for name, network in checkpoint.networks.items()}
    return weights_digest({"networks": networks, "averages": {}})


def _run(
    task: HeldOutTask,
    store: Store,
    journal: EvaluationJournal,
    device: Device,
    num_workers: int,
    address: str | None,
) -> HeldOutResults:
    """Evaluate in this process, or with Ray Train's workers if there are to be several or a
    cluster is given."""
    num = task.config.num
    if num < _BIASED_BELOW:
        _log.warning(
            "num = %d: with fewer than %d samples the Fréchet distance is too large, by an amount "
            "that shrinks as 1 / num: compare values of equal num only",
            num,
            _BIASED_BELOW,
        )
    if num_workers == 1 and not (address or os.environ.get("RAY_ADDRESS")):
        on_gpu = device != "cpu" and torch.cuda.is_available()
        return evaluate_held_out(task, torch.device("cuda" if on_gpu else "cpu"))
    from pipelines.cluster.connection import connect  # light: imports Ray
    from pipelines.cluster.shared_store import shared_store  # light: imports Ray
    from pipelines.evaluation.workers import evaluate_on_workers  # light: imports Ray

    # Workers of two commands would take each other's files.
    with holding(RunFolder(journal.folder, journal.files), "model"), connect(address) as cluster:
        on_gpu = uses_gpu(cluster, device, num_workers)
        marker = shared_store(store.root, journal.marker, cluster)
        folder = journal.folder / "workers"
        return evaluate_on_workers(task, folder, marker, num_workers=num_workers, on_gpu=on_gpu)
