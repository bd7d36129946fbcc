"""`genpipe evaluate` of recorded runs, which are recorded here without Ray, untrained."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from pipelines.analysis.run_results import identity, outcome

import gen_models
from gen_models.core import Learner
from gen_models.core.checkpoint import save_checkpoint
from pipelines.cli.main import main, parse_run
from pipelines.store.journal import Journal, checkpoint_name
from pipelines.tracking import Tracker
from pipelines.training.preflight import preflight

pytestmark = pytest.mark.slow

MLP = ["--model.arch", "mlp", "--model.hidden", "16"]


def recorded(args: list[str], store: Path) -> str:
    """The name of a run that has ended after one epoch."""
    asked = parse_run("train", [*args, *MLP, "--store", str(store)])
    assert asked is not None
    plan = preflight(asked)
    run, folder = plan.run, store / "runs" / "one"
    model = gen_models.family(run.family).Model(run.model, plan.dataset.spec)
    checkpoint = folder / checkpoint_name(1)
    checkpoint.mkdir(parents=True)
    learner = Learner(model, run.optim, seed=0, steps_per_epoch=1)
    save_checkpoint(checkpoint, run.family, run.optim, learner)
    journal = Journal(folder)
    journal.open(identity(run, plan.dataset, kind="run", name="one", experiment=plan.experiment))
    journal.report(1, {run.metric: 1.0, "diverged": 0.0}, {})
    journal.close(outcome(folder, run, "completed", 1))
    with Tracker(plan.uri, store) as tracker:
        tracker.deliver(journal)
    return "one"


def evaluate(
    name: str, store: Path, capsys: pytest.CaptureFixture[str], *args: str
) -> dict[str, Any]:
    few = ["--importance-samples", "5", "--images", "5"]
    assert main(["evaluate", name, "--store", str(store), *few, "--json", *args]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_metrics_and_tags_are_recorded_with_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = recorded(["gan", "--data", "ring8"], tmp_path)
    found = evaluate(name, tmp_path, capsys, "--num", "1000")
    metrics = found["metrics"]
    assert 0.0 <= metrics["test/modes/ring8/1k"] < 8.0  # it was not trained
    assert 0.0 <= metrics["test/mode_share/ring8/1k"] < 0.5
    assert metrics["test/fd/pca-ring8/1k"] > 0.0
    assert found["tags"]["collapsed"] == "True"
    assert all(np.isfinite(value) for value in metrics.values())
    run = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_run(found["run_id"])
    assert metrics.items() <= run.data.metrics.items()
    assert run.data.tags["collapsed"] == "True" and run.data.tags["features"] == "pca-ring8"


def refused(name: str, store: Path, capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(["evaluate", name, "--store", str(store), *args]) == 2
    return capsys.readouterr().err


def test_features_are_the_run_s_own_or_those_asked_for(
    tmp_path: Path, torch_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = recorded(["vae", "--features", "pca"], tmp_path)
    own = evaluate(name, tmp_path, capsys, "--num", "300")["metrics"]
    assert "test/fd/pca-digits/300" in own and "test/fd/lenet-digits/300" not in own
    other = evaluate(name, tmp_path, capsys, "--num", "300", "--features", "lenet")["metrics"]
    assert "test/fd/lenet-digits/300" in other and "test/fd/pca-digits/300" not in other
    said = " ".join(refused(name, tmp_path, capsys, "--features", "inception").split())
    assert "features = 'inception': expected the network's weights in" in said
    assert f"{torch_home}/" in said and "--download gets them" in said


def test_two_workers_record_what_one_process_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = recorded(["vae", "--features", "pca"], tmp_path)
    more = ("--num", "3000", "--images", "50")
    alone = evaluate(name, tmp_path, capsys, *more)
    shared = evaluate(name, tmp_path, capsys, *more, "--num-workers", "2")
    assert shared["tags"] == alone["tags"] and shared["metrics"].keys() == alone["metrics"].keys()
    for key, value in alone["metrics"].items():
        assert shared["metrics"][key] == pytest.approx(value, rel=1e-4), key
    assert {"test/fd/pca-digits/3k", "test/kd/pca-digits/3k", "test/nll/iw5"} <= alone[
        "metrics"
    ].keys()
    run = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").get_run(shared["run_id"])
    assert shared["metrics"].items() <= run.data.metrics.items()
    assert not list(tmp_path.glob("evaluations/*"))
    said = refused(name, tmp_path, capsys, "--num-workers", "512")
    assert "num_workers = 512: expected at most" in said


def test_samples_are_compared_in_inception(
    tmp_path: Path, inception_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, pixels = tmp_path / "few.npz", np.random.default_rng(0)
    np.savez(path, images=pixels.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8))
    data = ["--data", f"npz:{path}", "--batch-size", "8"]
    name = recorded(["autoencoder", *data, "--features", "inception"], tmp_path)
    found = evaluate(name, tmp_path, capsys, "--num", "8")
    metrics = found["metrics"]
    assert metrics["test/fd/inception/8"] > 0.0 and "test/precision/inception/8" in metrics
    assert "collapsed" not in found["tags"]  # nobody can tell
    assert len(list(tmp_path.glob("features/inception-*-test.safetensors"))) == 1
    assert not list(tmp_path.glob("features/*-validation.safetensors"))  # not asked for
