"""Seed studies on real Ray with a real MLflow store."""

from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from support.pipeline import (
    SMALL,
    Capture,
    client,
    kill,
    run_here,
    run_process,
    start,
    steps,
    train_alone,
    wait_until,
)

from pipelines.cli.parsing import parse_run
from pipelines.config.run import Train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prepared_store")]
SHORT = [*SMALL, "--epochs", "2"]
Genpipe = Callable[..., dict[str, Any]]


@pytest.fixture
def genpipe(tmp_path: Path, capsys: Capture) -> Genpipe:
    """Runs a command in this process; returns its result."""

    def run(*args: str) -> dict[str, Any]:
        return run_here([*args, "--store", str(tmp_path)], capsys)[0]

    return run


def alone(run: Any, store: Path) -> float:
    """Return what the command of a recorded run gives, without Ray."""
    config = parse_run(Train, "train", run.data.tags["rerun"].split()[2:])
    assert config and config.seed == int(run.data.params["seed"])
    return train_alone(config, store)["val/nll/iw8"]


def check_children(store: Path, result: dict[str, Any], seeds: list[int]) -> None:
    """Check that each seed is one run below the study's, with what that seed gives alone."""
    mlflow = client(store)
    assert sorted(trial["config"]["seed"] for trial in result["ranking"]) == seeds
    for trial in result["ranking"]:
        run = mlflow.get_run(trial["run_id"])
        assert run.info.status == "FINISHED" and trial["outcome"] == "completed"
        assert run.data.tags["mlflow.parentRunId"] == result["run_id"]
        assert int(run.data.params["seed"]) == trial["config"]["seed"]
        assert steps(mlflow, trial["run_id"], "val/nll/iw8") == [1, 2]
        last = mlflow.get_metric_history(trial["run_id"], "val/nll/iw8")[-1].value
        assert last == pytest.approx(alone(run, store), rel=1e-4)


def check_statistics(metrics: dict[str, float], values: list[float]) -> None:
    """Check the statistics that MLflow holds of a study against its seeds' values."""
    assert metrics["confirm/mean"] == pytest.approx(fmean(values))
    assert metrics["confirm/std"] == pytest.approx(stdev(values))
    assert metrics["confirm/sem"] == pytest.approx(stdev(values) / len(values) ** 0.5)
    assert metrics["confirm/best"] == min(values) and metrics["confirm/worst"] == max(values)
    assert metrics["confirm/seeds"] == len(values) and metrics["confirm/lost"] == 0


@pytest.mark.long
def test_a_search_s_best_configs_are_confirmed_then_one_again_by_hand(
    genpipe: Genpipe, tmp_path: Path
) -> None:
    args = ("--trials", "3", "--grace-period", "1", "--searcher", "random")
    found = genpipe("search", "vae", *SHORT, *args, "--confirm", "2", "--seeds", "3")
    _check_search(tmp_path, found)
    _check_champion(tmp_path, found)
    # The best of all that is recorded is a config, by its mean, and no lucky seed.
    ranked = genpipe("best", "vae", "--num", "100")["ranking"]
    assert {row["run_id"] for row in ranked} == {trial["run_id"] for trial in found["ranking"]}
    own = {trial["run_id"]: trial for trial in found["ranking"]}
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
    assert (
        resumed["seed_statistics"] == result["seed_statistics"]
        and resumed["run_id"] == result["run_id"]
    )
    assert [t["run_id"] for t in resumed["ranking"]] == [t["run_id"] for t in result["ranking"]]
    # By hand, nothing is registered.
    assert len(client(tmp_path).search_model_versions("name = 'vae-digits'")) == 1


def _check_search(store: Path, found: dict[str, Any]) -> None:
    """Check that the best two by value are studied, each by a run of its own, and ranked by their
    means."""
    trials, mlflow = found["ranking"], client(store)
    assert found["outcome"] == "completed" and len(trials) == 3
    values = sorted(trial["value"] for trial in trials)
    assert {trial["value"] for trial in trials if trial["confirmed"]} == set(values[:2])
    means = [trial["confirmed"]["mean"] for trial in trials[:2]]
    assert means == sorted(means) and trials[2]["confirmed"] is None
    for trial in trials[:2]:
        parent = mlflow.get_run(found["studies"][trial["trial_id"]]["run_id"])
        assert parent.info.status == "FINISHED" and parent.data.tags["kind"] == "confirmation"
        assert parent.data.tags["confirms_search"] == found["search_id"]
        assert parent.data.tags["confirms_name"] == trial["trial_id"]
        assert parent.data.metrics["confirm/recorded"] == trial["value"]
        noted = mlflow.get_run(trial["run_id"]).data.metrics
        for name, value in trial["confirmed"].items():
            assert parent.data.metrics[f"confirm/{name}"] == noted[f"confirm/{name}"] == value


def _check_champion(store: Path, found: dict[str, Any]) -> None:
    """Check that the median seed of the config with the best mean has the alias, by that mean."""
    mlflow, best = client(store), found["ranking"][0]
    (version,) = mlflow.search_model_versions("name = 'vae-digits'")
    held = mlflow.get_model_version_by_alias("vae-digits", "champion")
    assert held.version == version.version and held.run_id == found["champion"]["run_id"]
    assert float(held.tags["value"]) == best["confirmed"]["mean"] and held.tags["seeds"] == "3"
    parent = mlflow.get_run(held.run_id).data.tags["mlflow.parentRunId"]
    assert parent == found["studies"][best["trial_id"]]["run_id"]
    assert found["champion"]["value"] == best["confirmed"]["median"]
    assert found["champion"]["of"] == best["trial_id"]
    assert Path(found["samples"]).is_file()
    config = {k: v for k, v in found["champion"]["config"].items() if k != "seed"}
    assert config == best["config"] and found["champion"]["config"]["seed"] in (1, 2, 3)


def _check_parent(store: Path, result: dict[str, Any], confirmed: Any) -> None:
    """Check that the study's own run names the studied one, and the command that repeats it."""
    parent = client(store).get_run(result["run_id"])
    run_id = confirmed.info.run_id
    assert parent.data.tags["confirms"] == run_id and parent.info.status == "FINISHED"
    assert parent.data.tags["rerun"] == f"genpipe confirm {run_id} --seeds 3"
    recorded = confirmed.data.metrics["best/val/nll/iw8"]
    assert parent.data.metrics["confirm/recorded"] == recorded
    values = [trial["value"] for trial in result["ranking"]]
    assert result["seeds_beaten"] == sum(recorded < value for value in values)
    check_statistics(parent.data.metrics, values)


@pytest.mark.long
def test_a_search_that_has_ended_is_confirmed_later_killed_and_resumed(tmp_path: Path) -> None:
    store, log = tmp_path / "runs", tmp_path / "log"
    search = ["search", "vae", "--store", str(store)]
    args = ["--trials", "2", "--grace-period", "1", "--searcher", "random", "--scheduler", "fifo"]
    found = run_process([*search, *SHORT, *args], log)
    assert found["champion"]["version"] == "1" and not found["studies"]

    confirm = [*search, "--resume", found["search_id"], "--confirm", "1", "--seeds", "6"]
    process = start(confirm, log)
    seeds = f"{found['search_id']}-*-seeds/trials/*/journal/reports/*1.json"
    wait_until(lambda: len(list(store.glob(f"searches/{seeds}"))) > 0)
    kill(process)

    result = run_process(confirm, log)
    best = result["ranking"][0]
    assert result["outcome"] == "completed" and len(result["studies"]) == 1
    assert best["confirmed"]["seeds"] == 6 and result["champion"]["of"] == best["trial_id"]
    mlflow = client(store)
    parent = result["studies"][best["trial_id"]]["run_id"]
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
