"""What the test split says of a recorded model, once it was chosen: the numbers to report, found
by this process, or by several workers."""

from __future__ import annotations

import os
import shutil
import tempfile
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gen_models.core.checkpoint import load_checkpoint
from gen_models.core.errors import require
from pipelines.catalog.runs import recorded_at
from pipelines.cluster.connection import connect
from pipelines.config.requests import Evaluate
from pipelines.config.serialization import config_of
from pipelines.evaluation.feature_extractor import extractor, features_of_test
from pipelines.evaluation.held_out import NEIGHBOURS, Findings, Subject, measured
from pipelines.evaluation.modes import telling_modes
from pipelines.tracking import record_evaluation, resolve_checkpoint, resolve_run
from pipelines.training.preflight import check_machine, load_data, require_same_data
from pipelines.training.run import in_thread, uses_gpu
from pipelines.training.trainer import make_measuring
from pipelines.tuning.progress import say

_BIASED_BELOW = 2048


def assess(asked: Evaluate) -> dict[str, Any]:
    """Measure a recorded model on the test split, and tell its MLflow run.

    Raises `InputError` where there is no such run, or its data set has changed.
    """
    require(asked.num > NEIGHBOURS, "num", asked.num, f"at least {NEIGHBOURS + 1}")
    for name in ("importance_samples", "images", "num_workers"):
        require(getattr(asked, name) >= 1, name, getattr(asked, name), "an integer of at least 1")
    check_machine(asked)
    uri = recorded_at(asked.store, asked.tracking_uri)
    row = resolve_run(uri, asked.model)
    kept = f"a run or a trial, and not a {row.kind or 'run of another program'}"
    require(row.kind in ("run", "trial"), "model", asked.model, kept)
    config = config_of(row.tags["rerun"])
    config = replace(
        config,
        data_root=asked.data_root or config.data_root,
        features=asked.features or config.features,
        download=asked.download,
    )
    dataset = load_data(config)
    require_same_data(config, dataset, row.tags["data_digest"], row.name)
    with tempfile.TemporaryDirectory() as fetched:
        checkpoint = load_checkpoint(resolve_checkpoint(uri, asked.model, Path(fetched)))
    store = asked.store.absolute()
    space = extractor(dataset, store, config.features, config.download)
    images = torch.from_numpy(dataset.test)
    subject = Subject(
        asked,
        checkpoint,
        dataset.part("test"),
        dataset.part("train"),
        dataset.num_classes,
        space,
        features_of_test(space, space.space(images, dataset.num_classes), dataset, store).numpy(),
        telling_modes(dataset, store),
    )
    found = _measured(subject, store / "evaluations" / row.run_id)
    record_evaluation(uri, row.run_id, found)
    metrics, tags = dict(found.metrics), dict(found.tags)
    return {"run_id": row.run_id, "name": row.name, "metrics": metrics, "tags": tags}


def _measured(subject: Subject, folder: Path) -> Findings:
    """By this process; by workers, which leave what they find in `folder`, if there are to be
    several or a cluster is given."""
    asked = subject.asked
    if asked.num < _BIASED_BELOW:
        say(
            f"num = {asked.num}: below {_BIASED_BELOW} samples the Fréchet distance is too large, "
            "by an amount that shrinks as one over their number: compare equal numbers alone"
        )
    if asked.num_workers == 1 and not (asked.address or os.environ.get("RAY_ADDRESS")):
        on_gpu = asked.device != "cpu" and torch.cuda.is_available()
        return measured(subject, torch.device("cuda" if on_gpu else "cpu"))
    with connect(asked.address) as cluster:
        trainer = make_measuring(subject, folder, asked.num_workers, uses_gpu(asked, cluster))
        work = in_thread(trainer.fit)
        wait([work])
        work.result()
    found = Findings.read(folder)
    shutil.rmtree(folder)
    return found
