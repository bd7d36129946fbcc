"""Searches of a space of one's own that are extended, warm-started and given configs, on real
Ray."""

from pathlib import Path
from typing import Any

import pytest
from support.pipeline import (
    SMALL,
    Capture,
    check_champion,
    check_recorded,
    client,
    run_here,
    trial_metrics,
)

import genpipe

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prepared_store")]

SPACE = (
    *("--space", "model.arch=choice(['mlp', 'conv'])", "batch_size=choice([128, 256])"),
    "model.hidden=choice([[16], [32]]) if model.arch == 'mlp'",
    *("--require", "model.latent_dim <= 16"),
)
SHORT = ("--precision", "fp32", "--epochs", "3", "--grace-period", "1")


def test_a_search_is_extended_and_another_goes_on_from_what_it_knows(
    tmp_path: Path, capsys: Capture
) -> None:
    store = ["--store", str(tmp_path)]
    search = ["search", "vae", *store]
    first, _ = run_here([*search, *SHORT, *SPACE, "--trials", "4"], capsys)
    name = first["search_id"]
    before = trial_metrics(tmp_path)
    settings = [trial["config"] for trial in first["ranking"]]
    assert {each["model.arch"] for each in settings} == {"mlp", "conv"}
    assert all(each["model.latent_dim"] <= 16 for each in settings)
    params = client(tmp_path).get_run(first["run_id"]).data.params
    assert params["space.model.hidden"] == "choice([[16], [32]]) if model.arch == 'mlp'"
    again = genpipe.rerun(first["ranking"][0]["trial_id"], store=tmp_path)
    assert again.equal, again  # of its own batch size, trained beside others of another

    more, log = run_here([*search, "--resume", name, "--trials", "6", "--epochs", "4"], capsys)
    assert "it was made for 4 trials of 3 epochs" in log
    check_recorded(tmp_path, more)
    check_champion(tmp_path, more)
    assert len(more["ranking"]) == 6 and more["search_id"] == name
    known = {trial["trial_id"]: trial for trial in more["ranking"]}
    for trial in first["ranking"]:  # what was trained is as it was
        epochs = known[trial["trial_id"]]["epochs"]
        assert epochs >= trial["epochs"] and (trial["outcome"] == "completed" or epochs < 4)
    after = trial_metrics(tmp_path)
    assert {config: after[config][: len(epochs)] for config, epochs in before.items()} == before

    given = tmp_path / "given.yaml"
    given.write_text("optim.lr: 0.0043\n")
    args = ["--trials", "2", "--warm-start", name, "--enqueue", str(given)]
    last, log = run_here([*search, *SMALL, *SHORT[2:], *args], capsys)
    assert "6 trials of earlier searches" in log
    assert 0.0043 in [trial["config"]["optim.lr"] for trial in last["ranking"]]


@pytest.mark.long
@pytest.mark.parametrize("searcher", ["qmc", "gp", "cmaes", "nsga2", "nsga3"])
def test_every_searcher_runs_under_tune(searcher: str, tmp_path: Path, capsys: Capture) -> None:
    args = ["--trials", "3", "--epochs", "2", "--grace-period", "1", "--searcher", searcher]
    result, _ = run_here(["search", "vae", "--store", str(tmp_path), *SMALL, *args], capsys)
    assert len(result["ranking"]) == 3
    check_recorded(tmp_path, result)


@pytest.mark.long
@pytest.mark.parametrize(
    "scheduler",
    [("median",), ("pb2",), ("asha", "--metric", "val/nll", "--metric", "val/reconstruction")],
)
def test_every_scheduler_runs_under_tune(
    scheduler: tuple[str, ...], tmp_path: Path, capsys: Capture
) -> None:
    args = ["--trials", "4", "--epochs", "4", "--grace-period", "1", "--scheduler", *scheduler]
    result, _ = run_here(["search", "vae", "--store", str(tmp_path), *SMALL, *args], capsys)
    assert len(result["ranking"]) == 4
    outcomes: set[Any] = {trial["outcome"] for trial in result["ranking"]}
    assert outcomes <= {"completed", "stopped_early"}
    check_recorded(tmp_path, result)
