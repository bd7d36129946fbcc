"""Job files on real Ray: stages that were killed go on, and what was recorded gives the same
trials in another store."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.pipeline import (
    SMALL,
    Capture,
    client,
    kill,
    recorded_epochs,
    run_here,
    run_process,
    start,
    trial_metrics,
    wait_until,
)

import genpipe
from pipelines.cli.main import main
from pipelines.store.layout import Store

pytestmark = pytest.mark.slow

STAGES = """\
job: demo
stages:
  search:
    family: vae
    trials: 3
    epochs: {epochs}
    scheduler: fifo
    searcher: random
    batch_size: 256
    precision: fp32
    max_concurrent: 1
    model: {{hidden: [32]}}
  confirm:
    run: ${{search.champion}}
    seeds: 2
  train:
    family: vae
    epochs: ${{search.champion.best_epoch}}
    batch_size: 256
    precision: fp32
    model: {{hidden: [32]}}
  evaluate:
    model: ${{search.champion}}
    num: 64
    images: 10
    importance_samples: 4
  picture:
    command: sample
    model: ${{train.run_id}}
    num: 4
    out: {folder}/samples-${{search.search_id}}.png
"""


@pytest.mark.long
@pytest.mark.usefixtures("prepared_store")
def test_a_job_that_was_stopped_and_killed_goes_on(tmp_path: Path) -> None:
    store, file, log = tmp_path / "runs", tmp_path / "demo.yaml", tmp_path / "log"
    file.write_text(STAGES.format(epochs=30, folder=tmp_path))
    args = ["run", str(file), "--set", f"store={store}"]
    process = start(args, log)
    wait_until(lambda: recorded_epochs(store, 5) >= 1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert "the same command goes on with it" in log.read_text()

    process = start(args, log)
    wait_until(lambda: recorded_epochs(store, 30) >= 1)
    kill(process)
    (search,) = (store / "searches").iterdir()
    assert search.name.startswith("demo-search-")

    result = run_process(args, log)
    stages = {name: stage["result"] for name, stage in result["stages"].items()}
    assert list(stages) == ["search", "confirm", "train", "evaluate", "picture"]
    assert all(stage["is_new"] for stage in result["stages"].values())
    assert stages["search"]["search_id"] == search.name
    assert {trial["epochs"] for trial in stages["search"]["ranking"]} == {30}
    assert len(list(search.glob("trials/*/journal/outcome.json"))) == 3
    champion = stages["search"]["champion"]
    assert stages["confirm"]["seed_study"]["run"] == champion["run_id"]
    assert stages["confirm"]["search_id"].startswith("demo-confirm-")
    assert stages["train"]["epoch"] == champion["best_epoch"]
    assert stages["evaluate"]["run_id"] == champion["run_id"]
    assert Path(stages["picture"]["path"]) == tmp_path / f"samples-{search.name}.png"
    assert Path(stages["picture"]["path"]).is_file()

    again = run_process(args, log)  # nothing is left to do
    assert {name: stage["result"] for name, stage in again["stages"].items()} == stages
    assert not any(stage["is_new"] for stage in again["stages"].values())
    assert len(list((store / "searches").iterdir())) == 2
    _check_recorded_files(store, stages)


def _check_recorded_files(store: Path, stages: dict[str, Any]) -> None:
    """Check that each run has its job file in its folder and in MLflow, and that no trial has."""
    folders = Store.at(store)
    paths = {
        stages["search"]["run_id"]: folders.search(stages["search"]["search_id"]).job,
        stages["confirm"]["run_id"]: folders.search(stages["confirm"]["search_id"]).job,
        stages["train"]["run_id"]: folders.run(stages["train"]["name"]).job,
    }
    commands = []
    for run_id, path in paths.items():
        delivered = Path(client(store).download_artifacts(run_id, "job.yaml", str(store)))
        assert delivered.read_text() == path.read_text()
        commands.append(yaml.safe_load(path.read_text())["command"])
    assert commands == ["search", "confirm", "train"]
    assert not list(store.glob("searches/*/trials/*/job.yaml"))


SEARCHES = {
    "random": ["--trials", "5", "--searcher", "random", "--scheduler", "fifo"],
    "tpe": ["--trials", "13", "--epochs", "2", "--max-concurrent", "1", "--grace-period", "1"],
    "space": [
        *("--trials", "5", "--searcher", "random", "--scheduler", "fifo", "--space", "none"),
        "optim.lr=loguniform(1e-4, 1e-2)",
        "model.kl_weight=uniform(0.5, 2) if optim.lr > 0.001",
    ],
    "grid": ["--searcher", "grid", "--grid-points", "2", "--scheduler", "fifo"],
}


@pytest.mark.long
@pytest.mark.usefixtures("prepared_store")
@pytest.mark.parametrize("searcher", SEARCHES)
def test_the_file_of_a_search_gives_the_same_trials_in_an_empty_store(
    searcher: str, tmp_path: Path, capsys: Capture
) -> None:
    first, second, file = tmp_path / "runs", tmp_path / "empty", tmp_path / "job.yaml"
    where = ["--epochs", "2", "--execution", "in_turn", "--model.latent-dim", "4"]
    args = ["search", "vae", *SMALL, *where, *SEARCHES[searcher]]
    assert main([*args, "--save", str(file)]) == 0
    capsys.readouterr()
    result, _ = run_here(["run", str(file), "--set", f"store={first}"], capsys)
    search_id = result["stages"]["search"]["result"]["search_id"]
    recorded = Store.at(first).search(search_id).job
    run_here(["run", str(recorded), "--set", f"store={second}"], capsys)
    trials = trial_metrics(first)
    assert len(trials) == len(result["stages"]["search"]["result"]["ranking"]) > 3
    assert trial_metrics(second) == trials


@pytest.mark.usefixtures("prepared_store")
def test_a_job_runs_from_python(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "alone.yaml"
    file.write_text(
        "command: train\nfamily: vae\nepochs: 2\nbatch_size: 256\nmodel: {hidden: [8]}"
    )
    result = genpipe.run_job(file, {"store": str(tmp_path), "epochs": 1, "features": "pca"})
    trained = result.stages["train"]
    assert (trained.exit_code, trained.is_new, trained.result["epoch"]) == (0, True, 1)
    assert capsys.readouterr().out == ""
    name = trained.result["name"]
    config = json.loads((tmp_path / "runs" / name / "config.json").read_text())["config"]
    assert config["features"] == "pca"
    again = genpipe.run_job(file, {"store": str(tmp_path), "epochs": 1, "features": "pca"})
    assert not again.stages["train"].is_new and again.stages["train"].result == trained.result
