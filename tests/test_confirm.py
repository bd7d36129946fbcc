"""Configs trained again with other seeds: on real Ray with a real MLflow store, and what is
refused before Ray starts."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
from test_cli import refused
from test_pipeline import client, kill, start, steps, train_alone, wait_until
from test_pipeline import genpipe as genpipe_process

from pipelines.analysis.run_results import identity
from pipelines.cli.main import main, parse_run
from pipelines.config.run import Train
from pipelines.data import Dataset, load
from pipelines.store.journal import Journal, Outcome
from pipelines.tracking import Tracker, tracking_uri

SMALL = ["--model.hidden", "32", "--batch-size", "256", "--precision", "fp32", "--epochs", "2"]
Genpipe = Callable[..., dict[str, Any]]


@pytest.fixture
def genpipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Genpipe:
    """Runs a command in this process: its result."""

    def run(*args: str) -> dict[str, Any]:
        code = main([*args, "--store", str(tmp_path), "--json"])
        out, said = capsys.readouterr()
        assert code == 0, said
        result: dict[str, Any] = json.loads(out.splitlines()[-1])
        return result

    return run


def alone(run: Any, store: Path) -> float:
    """What the command of a recorded run gives, without Ray."""
    config = parse_run("train", run.data.tags["rerun"].split()[2:])
    assert isinstance(config, Train) and config.seed == int(run.data.params["seed"])
    return train_alone(config, store)["val/nll/iw8"]


def check_children(store: Path, result: dict[str, Any], seeds: list[int]) -> None:
    """Each seed is one run below the confirmation's, with what that seed gives alone."""
    mlflow = client(store)
    assert sorted(trial["config"]["seed"] for trial in result["trials"]) == seeds
    for trial in result["trials"]:
        run = mlflow.get_run(trial["run_id"])
        assert run.info.status == "FINISHED" and trial["outcome"] == "completed"
        assert run.data.tags["mlflow.parentRunId"] == result["run_id"]
        assert int(run.data.params["seed"]) == trial["config"]["seed"]
        assert steps(mlflow, trial["run_id"], "val/nll/iw8") == [1, 2]
        last = mlflow.get_metric_history(trial["run_id"], "val/nll/iw8")[-1].value
        assert last == pytest.approx(alone(run, store), rel=1e-4)


def check_spread(metrics: dict[str, float], values: list[float]) -> None:
    """What MLflow holds of a confirmation follows from its seeds' values."""
    assert metrics["confirm/mean"] == pytest.approx(fmean(values))
    assert metrics["confirm/std"] == pytest.approx(stdev(values))
    assert metrics["confirm/sem"] == pytest.approx(stdev(values) / len(values) ** 0.5)
    assert metrics["confirm/best"] == min(values) and metrics["confirm/worst"] == max(values)
    assert metrics["confirm/seeds"] == len(values) and metrics["confirm/lost"] == 0


@pytest.mark.slow
def test_a_search_s_best_configs_are_confirmed_then_one_again_by_hand(
    genpipe: Genpipe, tmp_path: Path
) -> None:
    args = ("--trials", "3", "--grace-period", "1", "--searcher", "random")
    found = genpipe("search", "vae", *SMALL, *args, "--confirm", "2", "--seeds", "3")
    _check_search(tmp_path, found)
    _check_champion(tmp_path, found)
    # The best of all that is recorded is a config, by its mean, and no lucky seed.
    ranked = genpipe("best", "vae", "--num", "100")["ranking"]
    assert {row["run_id"] for row in ranked} == {trial["run_id"] for trial in found["trials"]}
    own = {trial["run_id"]: trial for trial in found["trials"]}
    for row in ranked:
        trial = own[row["run_id"]]
        mean = trial["confirmed"]["mean"] if trial["confirmed"] else trial["value"]
        assert row["value"] == mean

    champion = client(tmp_path).get_run(found["champion"]["run_id"])
    result = genpipe("confirm", "vae-digits@champion", "--seeds", "3")
    first = int(champion.data.params["seed"]) + 1
    check_children(tmp_path, result, [first, first + 1, first + 2])
    _check_parent(tmp_path, result, champion)

    # It is complete: the same again from its folder.
    resumed = genpipe("confirm", found["champion"]["run_id"], "--resume", result["search_id"])
    assert resumed["spread"] == result["spread"] and resumed["run_id"] == result["run_id"]
    assert [t["run_id"] for t in resumed["trials"]] == [t["run_id"] for t in result["trials"]]
    # By hand, nothing is registered.
    assert len(client(tmp_path).search_model_versions("name = 'vae-digits'")) == 1


def _check_search(store: Path, found: dict[str, Any]) -> None:
    """The best two by value are confirmed, each by a run of its own, and ranked by their means."""
    trials, mlflow = found["trials"], client(store)
    assert found["outcome"] == "completed" and len(trials) == 3
    values = sorted(trial["value"] for trial in trials)
    assert {trial["value"] for trial in trials if trial["confirmed"]} == set(values[:2])
    means = [trial["confirmed"]["mean"] for trial in trials[:2]]
    assert means == sorted(means) and trials[2]["confirmed"] is None
    for trial in trials[:2]:
        parent = mlflow.get_run(found["confirmations"][trial["trial_id"]]["run_id"])
        assert parent.info.status == "FINISHED" and parent.data.tags["kind"] == "confirmation"
        assert parent.data.tags["confirms_search"] == found["search_id"]
        assert parent.data.tags["confirms_name"] == trial["trial_id"]
        assert parent.data.metrics["confirm/recorded"] == trial["value"]
        noted = mlflow.get_run(trial["run_id"]).data.metrics
        for name, value in trial["confirmed"].items():
            assert parent.data.metrics[f"confirm/{name}"] == noted[f"confirm/{name}"] == value


def _check_champion(store: Path, found: dict[str, Any]) -> None:
    """The alias is on the middle seed of the config with the best mean, claimed by that mean."""
    mlflow, best = client(store), found["trials"][0]
    (version,) = mlflow.search_model_versions("name = 'vae-digits'")
    held = mlflow.get_model_version_by_alias("vae-digits", "champion")
    assert held.version == version.version and held.run_id == found["champion"]["run_id"]
    assert float(held.tags["value"]) == best["confirmed"]["mean"] and held.tags["seeds"] == "3"
    parent = mlflow.get_run(held.run_id).data.tags["mlflow.parentRunId"]
    assert parent == found["confirmations"][best["trial_id"]]["run_id"]
    assert found["champion"]["value"] == best["confirmed"]["median"]
    assert found["champion"]["of"] == best["trial_id"]
    assert Path(found["samples"]).is_file()
    config = {k: v for k, v in found["champion"]["config"].items() if k != "seed"}
    assert config == best["config"] and found["champion"]["config"]["seed"] in (1, 2, 3)


def _check_parent(store: Path, result: dict[str, Any], confirmed: Any) -> None:
    """The confirmation's own run names the confirmed one, and how to ask again."""
    parent = client(store).get_run(result["run_id"])
    run_id = confirmed.info.run_id
    assert parent.data.tags["confirms"] == run_id and parent.info.status == "FINISHED"
    assert parent.data.tags["rerun"] == f"genpipe confirm {run_id} --seeds 3"
    recorded = confirmed.data.metrics["best/val/nll/iw8"]
    assert parent.data.metrics["confirm/recorded"] == recorded
    values = [trial["value"] for trial in result["trials"]]
    assert result["beaten"] == sum(recorded < value for value in values)
    check_spread(parent.data.metrics, values)


def recorded(store: Path, dataset: Dataset, args: list[str], **who: str) -> None:
    """A run in MLflow as if it had been trained."""
    run = parse_run("train", args)
    assert isinstance(run, Train)
    journal = Journal(store / "runs" / who["name"])
    journal.open(identity(run, dataset, experiment="vae-x", **who))
    journal.report(
        1, {"val/nll/iw8": -1.0, **({"config/optim.lr": 0.1} if "pbt" in who["name"] else {})}, {}
    )
    journal.close(Outcome("completed", 1))
    Tracker(tracking_uri(store), store).deliver(journal)


def test_what_cannot_be_confirmed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "runs"
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)
    np.savez("x.npz", images=images)
    args = ["vae", "--data", "npz:x.npz", "--batch-size", "8", "--precision", "fp32"]
    dataset = load("npz:x.npz", Path())
    recorded(store, dataset, args, kind="run", name="mine")
    recorded(store, dataset, args, kind="search", name="whole")
    recorded(store, dataset, args, kind="trial", name="by-pbt")

    said = refused(["confirm", "yours"], capsys)
    assert "run = 'yours': expected a run's id or name" in said
    said = refused(["confirm", "whole"], capsys)
    assert "run = 'whole': expected a run or a trial, and not a search" in said
    assert "run = 'by-pbt': expected a run with one config" in refused(
        ["confirm", "by-pbt"], capsys
    )
    said = refused(["confirm", "mine", "--resume", "x"], capsys)
    assert "resume = 'x': expected a search of" in said
    assert main(["confirm", "mine", "--seeds", "3", "--dry-run"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["trials"] == 3 and content["searched"] == {
        "seed": "categorical uniform [1, 2, 3]"
    }

    np.savez("x.npz", images=255 - images)
    said = refused(["confirm", "mine"], capsys)
    assert "data = 'npz:x.npz': expected the data set that mine was trained on" in said
    assert dataset.digest in said and not (store / "searches").exists()


@pytest.mark.slow
def test_a_search_that_has_ended_is_confirmed_later_killed_and_resumed(tmp_path: Path) -> None:
    store, log = tmp_path / "runs", tmp_path / "log"
    search = ["search", "vae", "--store", str(store)]
    args = ["--trials", "2", "--grace-period", "1", "--searcher", "random", "--scheduler", "fifo"]
    found = genpipe_process([*search, *SMALL, *args], log)
    assert found["champion"]["version"] == "1" and "confirmations" not in found

    confirm = [*search, "--resume", found["search_id"], "--confirm", "1", "--seeds", "6"]
    process = start(confirm, log)
    seeds = f"{found['search_id']}-*-seeds/trials/*/journal/reports/*1.json"
    wait_until(lambda: len(list(store.glob(f"searches/{seeds}"))) > 0)
    kill(process)

    result = genpipe_process(confirm, log)
    best = result["trials"][0]
    assert result["outcome"] == "completed" and len(result["confirmations"]) == 1
    assert best["confirmed"]["seeds"] == 6 and result["champion"]["of"] == best["trial_id"]
    mlflow = client(store)
    parent = result["confirmations"][best["trial_id"]]["run_id"]
    condition = f"tags.`mlflow.parentRunId` = '{parent}'"
    (experiment,) = (e for e in mlflow.search_experiments() if e.name == "vae-digits")
    runs = mlflow.search_runs([experiment.experiment_id], condition)
    assert sorted(int(run.data.params["seed"]) for run in runs) == [1, 2, 3, 4, 5, 6]
    for run in runs:
        assert run.info.status == "FINISHED"
        assert steps(mlflow, run.info.run_id, "val/nll/iw8") == [1, 2]
    # The mean takes the alias from the single value that held it.
    held = mlflow.get_model_version_by_alias("vae-digits", "champion")
    assert held.tags["seeds"] == "6" and held.run_id in {run.info.run_id for run in runs}
