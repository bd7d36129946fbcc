"""`genpipe evaluate` of recorded runs, which are recorded here without Ray, untrained."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.pipeline import Capture, client, refused, run_here

import gen_models
from gen_models.core.checkpoint import save_checkpoint
from gen_models.training.learner import Learner
from pipelines.analysis.best_epoch import summarise_run
from pipelines.cli.parsing import parse_run
from pipelines.config.run import Train
from pipelines.store.checkpoints import checkpoint_folder
from pipelines.store.scan import JournalCache
from pipelines.tracking.queue import open_tracker
from pipelines.training.preflight import preflight
from pipelines.training.run import open_run
from pipelines.training.run_info import run_info

pytestmark = pytest.mark.slow

MLP = ["--model.arch", "mlp", "--model.hidden", "16"]


def recorded(args: list[str], store: Path) -> str:
    """Record a run that has ended after one epoch; return its name."""
    parsed = parse_run(Train, "train", [*args, *MLP, "--store", str(store)])
    assert parsed
    context = preflight(parsed)
    run, folder = context.run, context.store.run("one")
    model = gen_models.family(run.family).Model(run.model, context.dataset.spec)
    checkpoint = checkpoint_folder(folder.path, 1)
    checkpoint.mkdir(parents=True)
    learner = Learner(model, run.optim, seed=0, steps_per_epoch=1)
    save_checkpoint(checkpoint, run.family, run.optim, learner)
    experiment = context.experiment
    info = run_info(run, context.dataset, kind="run", name="one", experiment=experiment)
    open_run(folder, run, info)
    folder.journal.write_epoch(1, {run.metric: 1.0, "diverged": 0.0}, {})
    record = JournalCache().read(folder)
    folder.journal.close(summarise_run(record, run.objective, "completed", 1))
    with open_tracker(context.uri, context.store) as tracker:
        tracker.sync(folder.journal)
        assert tracker.flush(60)
    return "one"


def evaluate(name: str, store: Path, capsys: Capture, *args: str) -> dict[str, Any]:
    """Evaluate a run, with few samples of the bound; return the result."""
    few = ["--importance-samples", "5", "--images", "5"]
    return run_here(["evaluate", name, "--store", str(store), *few, *args], capsys)[0]


def again(name: str, store: Path) -> list[str]:
    return ["evaluate", name, "--store", str(store)]


def test_metrics_and_tags_are_recorded_with_the_run(tmp_path: Path, capsys: Capture) -> None:
    name = recorded(["gan", "--data", "ring8"], tmp_path)
    result = evaluate(name, tmp_path, capsys, "--num", "1000")
    metrics = result["metrics"]
    assert 0.0 <= metrics["test/modes/ring8/1000"] < 8.0  # it was not trained
    assert 0.0 <= metrics["test/mode_share/ring8/1000"] < 0.5
    assert metrics["test/fd/pca-ring8/1000"] > 0.0
    assert result["tags"]["collapsed"].startswith("True: of 1000 samples ")
    assert all(np.isfinite(value) for value in metrics.values())
    run = client(tmp_path).get_run(result["run_id"])
    assert metrics.items() <= run.data.metrics.items()
    assert run.data.tags["collapsed"] == result["tags"]["collapsed"]
    assert run.data.tags["features"] == "pca-ring8"


def test_features_are_the_run_s_own_or_those_asked_for(
    tmp_path: Path, torch_home: Path, capsys: Capture
) -> None:
    name = recorded(["vae", "--features", "pca"], tmp_path)
    own = evaluate(name, tmp_path, capsys, "--num", "300")["metrics"]
    assert "test/fd/pca-digits/300" in own and "test/fd/lenet-digits/300" not in own
    other = evaluate(name, tmp_path, capsys, "--num", "300", "--features", "lenet")["metrics"]
    assert "test/fd/lenet-digits/300" in other and "test/fd/pca-digits/300" not in other
    said = refused([*again(name, tmp_path), "--features", "inception"], capsys)
    assert "features = 'inception': expected the network's weights in" in said
    assert f"{torch_home}/" in said and "--download gets them" in said


def test_two_workers_record_what_one_process_does(tmp_path: Path, capsys: Capture) -> None:
    name = recorded(["vae", "--features", "pca"], tmp_path)
    more = ("--num", "3000", "--images", "50")
    alone = evaluate(name, tmp_path, capsys, *more)
    shared = evaluate(name, tmp_path, capsys, *more, "--num-workers", "2")
    assert shared["tags"] == alone["tags"] and shared["metrics"].keys() == alone["metrics"].keys()
    for key, value in alone["metrics"].items():
        assert shared["metrics"][key] == pytest.approx(value, rel=1e-4), key
    expected = {"test/fd/pca-digits/3000", "test/kd/pca-digits/3000", "test/nll/iw5/50"}
    assert expected <= alone["metrics"].keys()
    run = client(tmp_path).get_run(shared["run_id"])
    assert shared["metrics"].items() <= run.data.metrics.items()
    assert not list(tmp_path.glob("evaluations/*/workers"))
    said = refused([*again(name, tmp_path), "--num-workers", "512"], capsys)
    assert "num_workers = 512: expected at most" in said


def test_samples_are_compared_in_inception(
    tmp_path: Path, inception_file: Path, capsys: Capture
) -> None:
    path, pixels = tmp_path / "few.npz", np.random.default_rng(0)
    np.savez(path, images=pixels.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8))
    data = ["--data", f"npz:{path}", "--batch-size", "8"]
    name = recorded(["autoencoder", *data, "--features", "inception"], tmp_path)
    result = evaluate(name, tmp_path, capsys, "--num", "8")
    metrics = result["metrics"]
    assert metrics["test/fd/inception/8"] > 0.0 and "test/precision/inception/8" in metrics
    assert "collapsed" not in result["tags"]  # the modes of these data are not known
    assert len(list(tmp_path.glob("features/inception-*-test.safetensors"))) == 1
    assert not list(tmp_path.glob("features/*-validation.safetensors"))  # not asked for
