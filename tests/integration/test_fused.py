"""Fused search on real Ray: every scheduler and searcher through Tune's own code, restarts, and
trials whose results do not depend on those that are trained beside them."""

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray import tune
from support.pipeline import (
    SMALL,
    Capture,
    check_champion,
    check_kept,
    check_recorded,
    client,
    kill,
    last_json,
    recorded_epochs,
    run_here,
    run_process,
    start,
    wait_until,
)

from pipelines.tuning.recorder import Event, TrialReported
from pipelines.tuning.search_run import SearchRun
from tune_spaces import vae

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prepared_store")]
Search = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture
def search(tmp_path: Path, capsys: Capture) -> Search:
    """Runs a search in this process; returns its result and its log."""

    def run(family: str, *args: str, expect: int = 0) -> tuple[dict[str, Any], str]:
        return run_here(["search", family, "--store", str(tmp_path), *args], capsys, expect)

    return run


def test_asha_with_tpe(search: Search, tmp_path: Path) -> None:
    args = ("--trials", "10", "--epochs", "6", "--grace-period", "2", "--fuse", "3")
    result, log = search("vae", *SMALL, *args, "--keep-checkpoints", "2")
    assert "trials fused" in log and "starting the first trials" in log
    assert len(result["ranking"]) == 10
    assert {trial["outcome"] for trial in result["ranking"]} == {"completed", "stopped_early"}
    check_recorded(tmp_path, result)
    check_champion(tmp_path, result)
    # Pictures of those that led, and not of every trial.
    pictures = tmp_path.glob("searches/*/trials/*/journal/**/*.png")
    assert 1 <= len({path.parents[2] for path in pictures}) < 10
    # A trial that has ended keeps its two best checkpoints and its newest.
    for trial in result["ranking"]:
        check_kept(tmp_path, trial, 2)


@pytest.mark.parametrize("scheduler", ["hyperband", "pbt"])
def test_schedulers_that_pause_trials(scheduler: str, search: Search, tmp_path: Path) -> None:
    args = ("--trials", "4", "--epochs", "9", "--grace-period", "2", "--searcher", "random")
    result, _ = search("vae", *SMALL, *args, "--scheduler", scheduler)
    outcomes = [trial["outcome"] for trial in result["ranking"]]
    assert len(outcomes) == 4 and "failed" not in outcomes and "completed" in outcomes
    check_recorded(tmp_path, result)
    if scheduler == "pbt":
        _check_exploits(tmp_path, result)


def _check_exploits(store: Path, result: dict[str, Any]) -> None:
    """Trials changed their settings while they ran, and MLflow has each epoch's."""
    mlflow = client(store)
    histories = [
        {p.value for p in mlflow.get_metric_history(trial["run_id"], "config/optim.lr")}
        for trial in result["ranking"]
    ]
    assert max(len(history) for history in histories) > 1


def test_a_grid_is_searched_whole(search: Search) -> None:
    args = ("--searcher", "grid", "--grid-points", "2", "--epochs", "1", "--grace-period", "1")
    result, _ = search("vae", *SMALL, *args, "--scheduler", "fifo", "--model.latent-dim", "4")
    rates = {trial["config"]["optim.lr"] for trial in result["ranking"]}
    weights = {trial["config"]["model.kl_weight"] for trial in result["ranking"]}
    assert len(result["ranking"]) == 4
    assert sorted(rates) == pytest.approx([3e-4, 1e-2])
    assert sorted(weights) == pytest.approx([0.25, 4.0])


def test_structure_is_searched_too(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks and depths differ between the trials of a worker."""
    model = {
        "arch": tune.choice(["mlp", "conv"]),
        "hidden": tune.choice([(32,), (16, 16)]),
        "latent_dim": tune.choice([3, 5]),
    }
    monkeypatch.setattr(vae, "SPACE", replace(vae.SPACE, domains={"model": model}))
    args = ("--trials", "6", "--epochs", "2", "--grace-period", "1", "--searcher", "random")
    args = (*args, "--seed", "3")
    result, _ = search("vae", "--batch-size", "256", "--model.channels", "4", *args, "--fuse", "3")
    check_recorded(tmp_path, result)
    configs = [trial["config"] for trial in result["ranking"]]
    assert {config["model.arch"] for config in configs} == {"mlp", "conv"}
    assert {c["model.hidden"] for c in configs} == {"(32,)", "(16, 16)"}


@pytest.mark.long
def test_a_fused_worker_that_dies_is_restarted_and_its_trials_go_on(tmp_path: Path) -> None:
    store, log = tmp_path / "runs", tmp_path / "log"
    args = ["--trials", "4", "--epochs", "16", "--scheduler", "fifo", "--searcher", "random"]
    args = ["search", "vae", "--store", str(store), *SMALL, *args, "--batch-size", "64", "--json"]
    args[-1:-1] = ["--execution", "in_turn"]  # else each of the two searches would measure
    process = start(args, log)
    wait_until(lambda: recorded_epochs(store, 4) > 1)
    victim = next(fused_workers(process.pid))
    victim.kill()
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, log.read_text()
    result = last_json(out)
    assert {trial["outcome"] for trial in result["ranking"]} == {"completed"}
    check_recorded(store, result)
    # The same command gives the same values undisturbed.
    other = tmp_path / "undisturbed"
    again = run_process([*args[:3], str(other), *args[4:-1]], log)
    values = [sorted(t["value"] for t in r["ranking"]) for r in (result, again)]
    assert values[0] == values[1]


def fused_workers(pid: int) -> Iterator[psutil.Process]:
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if process.cmdline()[0].startswith("ray::FusedWorker"):
                yield process
        except (psutil.Error, IndexError):
            continue


@pytest.mark.long
def test_a_fused_search_is_interrupted_killed_and_resumed(tmp_path: Path) -> None:
    store, log = tmp_path / "runs", tmp_path / "log"
    args = ["--trials", "4", "--epochs", "10", "--scheduler", "fifo", "--max-concurrent", "2"]
    search = ["search", "vae", "--store", str(store)]
    process = start([*search, *SMALL, *args], log)
    wait_until(lambda: recorded_epochs(store, 3) > 0)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130, log.read_text()
    (search_id,) = (path.name for path in (store / "searches").iterdir())
    assert f"--resume {search_id}" in log.read_text()
    mlflow = client(store)
    (experiment,) = (e for e in mlflow.search_experiments() if e.name == "vae-digits")
    interrupted = mlflow.search_runs([experiment.experiment_id])
    assert {run.info.status for run in interrupted} == {"KILLED"}

    process = start([*search, "--resume", search_id], log)
    wait_until(lambda: "completed" in log.read_text())
    kill(process)
    result = run_process([*search, "--resume", search_id], log)
    assert len(result["ranking"]) == 4
    assert {trial["outcome"] for trial in result["ranking"]} == {"completed"}
    check_recorded(store, result)
    check_champion(store, result)


def test_trials_that_diverge_are_stopped_and_marked(search: Search, tmp_path: Path) -> None:
    tiny = ("--model.likelihood", "gaussian", "--model.decoder-std", "1e-25")
    args = ("--epochs", "3", "--grace-period", "1", "--trials", "2")
    result, _ = search("vae", *SMALL, *tiny, *args, expect=1)  # no trial has a value
    for trial in result["ranking"]:
        assert trial["outcome"] == "diverged" and trial["value"] is None
        run = client(tmp_path).get_run(trial["run_id"])
        assert run.data.tags["outcome"] == "diverged" and run.info.status == "FAILED"
    assert result["champion"] is None


def test_an_autoencoder_s_sampler_is_fitted_in_the_fused_worker(
    search: Search, tmp_path: Path
) -> None:
    args = ("--trials", "3", "--epochs", "2", "--grace-period", "1", "--model.hidden", "32")
    result, _ = search("autoencoder", *args)
    check_recorded(tmp_path, result)
    assert Path(result["samples"]).is_file()


@pytest.mark.long
def test_trials_of_two_workers_are_not_fused(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the search is slow, and a trial has ended before its last report is taken."""
    handle = SearchRun.handle

    def slow(self: SearchRun, event: Event) -> None:
        if isinstance(event, TrialReported) and event.epoch == 1:
            time.sleep(10)
        handle(self, event)

    monkeypatch.setattr(SearchRun, "handle", slow)
    args = ("--trials", "1", "--epochs", "2", "--grace-period", "1", "--num-workers", "2")
    result, log = search("vae", *SMALL, *args)
    assert "not fused" in log
    assert result["ranking"][0]["outcome"] == "completed"
    check_recorded(tmp_path, result)
