"""Training and searching with Ray Train's workers and a real MLflow store."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.pipeline import (
    Capture,
    check_kept,
    client,
    kept_epochs,
    last_json,
    recorded_epochs,
    run_process,
    start,
    steps,
    train_alone,
    wait_until,
)

import genpipe
from gen_models.core.checkpoint import load_sampler
from pipelines.cli.main import main
from pipelines.cli.parsing import parse_run
from pipelines.config.run import Train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prepared_store")]


def test_train_on_two_workers_then_use_it(tmp_path: Path, capsys: Capture) -> None:
    store, log = tmp_path / "runs", tmp_path / "log"
    args = ["train", "vae", "--epochs", "3", "--batch-size", "64", "--store", str(store)]
    args += ["--precision", "fp32"]
    result = run_process([*args, "--num-workers", "2"], log)
    assert "epoch 3/3" in log.read_text()
    assert kept_epochs(store / "runs" / result["name"]) == {result["best_epoch"], 3}

    mlflow = client(store)
    run = mlflow.get_run(result["run_id"])
    assert run.info.status == "FINISHED" and run.data.tags["outcome"] == "completed"
    assert run.data.params["num_workers"] == "2"
    assert json.loads(run.data.tags["settings"])["model.latent_dim"] == "16"
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
    alone = parse_run(Train, "train", rerun[2:])
    assert alone
    expected = train_alone(alone, store)
    for name in ("val/nll/iw8", "val/fd/lenet-digits/2k"):
        assert result["metrics"][name] == pytest.approx(expected[name], rel=1e-3)

    again = genpipe.rerun(result["run_id"], store=store)
    assert list(again.circumstances) == ["num_workers"] and again.epochs == 3
    assert again.largest_difference < 1e-3  # two workers add in another order

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
    measured = last_json(capsys.readouterr().out)
    recorded = mlflow.get_run(result["run_id"])
    assert measured["metrics"].items() <= recorded.data.metrics.items()
    assert re.match("(True|False): of 300 samples ", recorded.data.tags["collapsed"])
    assert measured["metrics"]["test/fd/lenet-digits/300"] > 0
    elbo, nll = (measured["metrics"][f"test/{name}/40"] for name in ("elbo/mc50", "nll/iw50"))
    assert -elbo > nll > 0
    pictures = [file.path for file in mlflow.list_artifacts(result["run_id"], "evaluation")]
    assert pictures == ["evaluation/nearest.png"]
    assert main(["best", "vae", "--store", str(store), "--json"]) == 0
    found = last_json(capsys.readouterr().out)
    assert [row["name"] for row in found["ranking"]] == [result["name"]]
    assert found["rerun"] == run.data.tags["rerun"]
    assert main(["runs", "--store", str(store)]) == 0
    assert result["run_id"] in capsys.readouterr().out


@pytest.mark.long
def test_a_search_with_workers_is_killed_and_resumed(tmp_path: Path) -> None:
    store, log = tmp_path / "runs", tmp_path / "log"
    search = ["search", "vae", "--store", str(store)]
    settings = [
        "--fuse",
        "off",
        "--trials",
        "2",
        "--epochs",
        "10",
        "--scheduler",
        "fifo",
        "--batch-size",
        "32",
        "--max-concurrent",
        "1",
        "--keep-checkpoints",
        "2",
    ]

    process = start([*search, *settings], log)  # SIGKILL in the second trial
    wait_until(lambda: recorded_epochs(store, 3) > 1)
    process.kill()
    process.communicate()
    (search_id,) = (path.name for path in (store / "searches").iterdir())

    result = run_process([*search, "--resume", search_id], log)
    assert result["search_id"] == search_id and len(result["ranking"]) == 2

    mlflow = client(store)
    (experiment,) = (e for e in mlflow.search_experiments() if e.name == "vae-digits")
    runs = mlflow.search_runs([experiment.experiment_id])
    kinds = Counter("trial" if "mlflow.parentRunId" in run.data.tags else "search" for run in runs)
    assert kinds == {"trial": 2, "search": 1}
    assert "RUNNING" not in {run.info.status for run in runs}
    by_id = {run.info.run_id: run for run in runs}
    for trial in result["ranking"]:
        run = by_id[trial["run_id"]]
        epochs = steps(mlflow, run.info.run_id, "val/nll/iw8")
        assert epochs == list(range(1, trial["epochs"] + 1))
        assert run.data.metrics["best/val/nll/iw8"] == trial["value"]
        assert run.data.tags["outcome"] == trial["outcome"]
        assert {k: float(run.data.params[k]) for k in trial["config"]} == trial["config"]
        check_kept(store, trial, 2)
    first = result["ranking"][0]
    assert result["champion"] == first
    assert first["value"] == min(trial["value"] for trial in result["ranking"])

    _check_champion(store, result, tmp_path)


def _check_champion(store: Path, result: dict[str, Any], folder: Path) -> None:
    """Check the alias, the picture, and the model in a process that has MLflow alone."""
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
