"""Evaluation on workers of Ray Train."""

from pathlib import Path

import pytest
import torch
from support.evaluation import untrained

from pipelines.cluster.connection import connect
from pipelines.cluster.shared_store import shared_store
from pipelines.config.evaluation import HeldOutConfig
from pipelines.data import load
from pipelines.evaluation.held_out import evaluate_held_out, make_task
from pipelines.evaluation.workers import evaluate_on_workers
from pipelines.store.layout import Store


@pytest.mark.slow
def test_two_workers_return_what_one_process_does(tmp_path: Path) -> None:
    digits, store = load("digits", tmp_path), Store.at(tmp_path)
    checkpoint = untrained("vae", digits.spec, tmp_path / "model")
    config = HeldOutConfig(num=1200, importance_samples=5, images=50)
    task = make_task(config, checkpoint, digits, store, "pca")
    folder = store.evaluation("one").folder / "workers"
    with connect("local", num_cpus=2, num_gpus=0) as cluster:
        cluster.require_workers(2, 1, 0)
        marker = shared_store(store.root, tmp_path / "marker", cluster)
        shared = evaluate_on_workers(task, folder, marker, num_workers=2, on_gpu=False)
    assert not folder.exists()
    alone = evaluate_held_out(task, torch.device("cpu"))
    assert shared.tags == alone.tags and shared.pictures.keys() == alone.pictures.keys()
    assert shared.metrics.keys() == alone.metrics.keys()
    for name, value in alone.metrics.items():
        assert shared.metrics[name] == pytest.approx(value, rel=1e-4), name
