"""The main job on real Ray with a real MLflow store: train, search, kill, resume, use."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from gen_models.core import load_sampler
from gen_models.training.batches import TrainingImages
from pipelines.cli.main import main, parse_run
from pipelines.config.run import Train
from pipelines.data import load
from pipelines.data.batches import as_batch
from pipelines.evaluation.feature_spaces import make_extractor
from pipelines.evaluation.validation import Evaluator
from pipelines.store.layout import Store
from pipelines.training.loop import make_learner

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def start(args: list[str], log: Path) -> "subprocess.Popen[str]":
    """A genpipe command in a process of its own; what it says on stderr goes to `log`."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines", *args],
        stdout=subprocess.PIPE,
        stderr=log.open("w"),
        text=True,
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS",)},
    )


def genpipe(args: list[str], log: Path, expect: int = 0) -> dict[str, Any]:
    """Run a command with `--json`; its result."""
    process = start([*args, "--json"], log)
    out, _ = process.communicate(timeout=400)
    assert process.returncode == expect, log.read_text() + out
    result: dict[str, Any] = json.loads(out.splitlines()[-1])
    return result


def kill(process: "subprocess.Popen[str]") -> None:
    """As the machine's owner may: without a word, Ray's agents too, which outlive a driver."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=30)
    for child in alive:
        os.kill(child.pid, signal.SIGKILL)
    time.sleep(1)


def wait_until(true: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def client(store: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{store}/mlflow.db")


def steps(mlflow: Any, run_id: str, metric: str) -> list[int]:
    return [point.step for point in mlflow.get_metric_history(run_id, metric)]


def test_train_on_two_workers_then_use_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, log = tmp_path / "runs", tmp_path / "log"
    args = ["train", "vae", "--epochs", "3", "--batch-size", "64", "--store", str(store)]
    args += ["--precision", "fp32"]
    result = genpipe([*args, "--num-workers", "2"], log)
    assert "epoch 3/3" in log.read_text()

    mlflow = client(store)
    run = mlflow.get_run(result["run_id"])
    assert run.info.status == "FINISHED" and run.data.tags["outcome"] == "completed"
    assert run.data.params["model.latent_dim"] == "16" and run.data.params["num_workers"] == "2"
    assert (
        run.data.metrics["best/val/nll/iw8"] == result["value"] == result["metrics"]["val/nll/iw8"]
    )
    assert steps(mlflow, result["run_id"], "val/nll/iw8") == [1, 2, 3]
    keys = {
        path.path.split("/")[1].split("+")[0].split("%")[0]
        for path in mlflow.list_artifacts(result["run_id"], "images")
    }
    assert {"samples", "reconstructions"} <= keys
    assert Image.open(result["samples"]).size[0] > 400

    # The same result on one worker, without Ray, from the command that the run itself names.
    rerun = run.data.tags["rerun"].split()
    assert rerun[:2] == ["genpipe", "train"]
    alone = parse_run("train", rerun[2:])
    assert isinstance(alone, Train)
    expected = train_alone(alone, store)
    for name in ("val/nll/iw8", "val/fd/lenet-digits/2k"):
        assert result["metrics"][name] == pytest.approx(expected[name], rel=1e-3)

    # A complete run is not run again, and its name stands for its config.
    assert main([*args, "--num-workers", "2"]) == 0
    said = capsys.readouterr()
    assert "complete already" in said.err and result["run_id"] in said.out
    assert main([*args, "--name", result["name"], "--model.latent-dim", "3"]) == 2
    assert "model.latent_dim = 16 and not 3" in capsys.readouterr().err

    out = tmp_path / "samples.npz"
    where = ["--store", str(store), "--num", "5", "--out", str(out)]
    assert main(["sample", result["run_id"], *where]) == 0
    images = np.load(out)["images"]
    assert images.shape == (5, 8, 8, 1) and images.dtype == np.uint8 and images.std() > 10
    few = ["--num", "300", "--importance-samples", "50", "--images", "40", "--json"]
    assert main(["evaluate", result["run_id"], "--store", str(store), *few]) == 0
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    recorded = mlflow.get_run(result["run_id"])
    assert measured["metrics"].items() <= recorded.data.metrics.items()
    assert recorded.data.tags["collapsed"] in ("True", "False")
    assert measured["metrics"]["test/fd/lenet-digits/300"] > 0
    assert -measured["metrics"]["test/elbo"] > measured["metrics"]["test/nll/iw50"] > 0
    pictures = [file.path for file in mlflow.list_artifacts(result["run_id"], "evaluation")]
    assert pictures == ["evaluation/nearest.png"]
    assert main(["best", "vae", "--store", str(store), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [row["name"] for row in found["ranking"]] == [result["name"]]
    assert found["rerun"] == run.data.tags["rerun"]
    assert main(["runs", "--store", str(store)]) == 0
    assert result["run_id"] in capsys.readouterr().out


def train_alone(run: Train, store: Path) -> dict[str, float]:
    """The validation metrics after a run of one worker, by the learner and the evaluator."""
    dataset = load(run.data, run.data_root)
    train, validation = as_batch(dataset.part("train")), as_batch(dataset.part("validation"))
    data = TrainingImages(train, run.batch_size, run.drop_last)
    learner = make_learner(run, data, dataset.num_classes)
    for epoch in range(1, run.epochs + 1):
        for batch, share in data.batches(run.seed, epoch):
            learner.step(batch, share)
    space = make_extractor(dataset, Store.at(store)).space(validation.images, dataset.num_classes)
    evaluator = Evaluator(train, validation, space)
    return evaluator.metrics([learner.model], [learner.sampling_networks()])[0]


def test_a_search_with_workers_is_killed_and_resumed(tmp_path: Path) -> None:
    store, log = tmp_path / "runs", tmp_path / "log"
    search = ["search", "vae", "--store", str(store)]
    settings = [
        "--fuse",
        "off",
        "--trials",
        "2",
        "--epochs",
        "20",
        "--scheduler",
        "fifo",
        "--batch-size",
        "32",
        "--max-concurrent",
        "1",
    ]

    process = start([*search, *settings], log)  # SIGKILL in the second trial
    wait_until(lambda: len(list(store.glob("searches/*/trials/*/journal/reports/*3.json"))) > 1)
    process.kill()
    process.communicate()
    (search_id,) = (path.name for path in (store / "searches").iterdir())

    result = genpipe([*search, "--resume", search_id], log)
    assert result["search_id"] == search_id and len(result["trials"]) == 2

    mlflow = client(store)
    (experiment,) = (e for e in mlflow.search_experiments() if e.name == "vae-digits")
    runs = mlflow.search_runs([experiment.experiment_id])
    kinds = Counter("trial" if "mlflow.parentRunId" in run.data.tags else "search" for run in runs)
    assert kinds == {"trial": 2, "search": 1}
    assert "RUNNING" not in {run.info.status for run in runs}
    by_id = {run.info.run_id: run for run in runs}
    for trial in result["trials"]:
        run = by_id[trial["run_id"]]
        epochs = steps(mlflow, run.info.run_id, "val/nll/iw8")
        assert epochs == list(range(1, trial["epochs"] + 1))
        assert run.data.metrics["best/val/nll/iw8"] == trial["value"]
        assert run.data.tags["outcome"] == trial["outcome"]
        assert {k: float(run.data.params[k]) for k in trial["config"]} == trial["config"]
    first = result["trials"][0]
    assert result["champion"] == first
    assert first["value"] == min(trial["value"] for trial in result["trials"])

    _check_champion(store, result, tmp_path)


def _check_champion(store: Path, result: dict[str, Any], folder: Path) -> None:
    """The alias, the picture, and a fresh process that knows nothing of us but MLflow."""
    champion = client(store).get_model_version_by_alias("vae-digits", "champion")
    assert str(champion.version) == result["champion"]["version"] == "1"
    assert champion.run_id == result["champion"]["run_id"]
    assert Image.open(result["samples"]).size[0] > 400
    noise = np.random.default_rng(0).normal(size=(7, 64)).astype(np.float32)
    noise = noise[:, : int(result["champion"]["config"]["model.latent_dim"])]
    np.save(folder / "noise.npy", noise)
    program = (
        "import sys, numpy as np, torch, mlflow\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "model = mlflow.pytorch.load_model('models:/vae-digits@champion')\n"
        "images = model(torch.from_numpy(np.load(sys.argv[2])))\n"
        "np.save(sys.argv[3], images.detach().numpy())\n"
        "assert 'pipelines' not in sys.modules and 'gen_models' not in sys.modules\n"
    )
    uri, files = f"sqlite:///{store}/mlflow.db", [folder / "noise.npy", folder / "images.npy"]
    command = [sys.executable, "-c", program, uri, *map(str, files)]
    subprocess.run(command, check=True, cwd=folder)

    sampler, _ = load_sampler(Path(result["champion"]["checkpoint"]))
    with torch.no_grad():
        ours = sampler(torch.from_numpy(noise)).numpy()
    np.testing.assert_allclose(np.load(files[1]), ours, rtol=1e-4, atol=1e-5)
