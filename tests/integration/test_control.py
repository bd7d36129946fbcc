"""Searches and runs that end before their time, from another process or by a budget, and go on."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.hooks import PATH, hook
from support.pipeline import (
    SMALL,
    Capture,
    check_champion,
    check_recorded,
    client,
    last_json,
    resume_search,
    run_here,
    run_process,
    start,
    wait_until,
)

from pipelines.cli.main import main
from pipelines.store.usage import Usage

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prepared_store")]

TRIALS, EPOCHS = 6, 8
MANY = 200
"""Trials of a search that does not end by itself."""
SEARCH = (
    *("search", "vae", *SMALL, "--features", "pca", "--batch-size", "32"),
    *("--trials", str(TRIALS), "--epochs", str(EPOCHS)),
    *("--searcher", "random", "--scheduler", "fifo", "--max-concurrent", "2"),
)


def usage(store: Path) -> Usage:
    (path,) = store.glob("searches/*/usage.json")
    return Usage(**json.loads(path.read_text()))


def test_a_search_is_stopped_from_another_process_and_goes_on(
    tmp_path: Path, capsys: Capture
) -> None:
    store, log = tmp_path / "runs", tmp_path / "log"
    with hook(503) as server:
        args = [*SEARCH, "--trials", str(MANY), "--store", str(store), "--json"]
        process = start([*args, "--notify", server.url], log)
        outcomes = "searches/*/trials/*/journal/outcome.json"
        wait_until(lambda: any(store.glob(outcomes)), 300)  # one trial has ended
        (folder,) = (store / "searches").iterdir()
        status, _ = run_here(["status", "--store", str(store)], capsys)
        (progress,) = status["runs"]
        assert progress["running"] and progress["epochs_per_minute"] > 0
        assert progress["trials"] == MANY and progress["trials_done"] >= 1
        stopped, _ = run_here(["stop", folder.name, "--wait", "--store", str(store)], capsys)
        out, _ = process.communicate(timeout=200)
    assert process.returncode == 0, log.read_text()
    result = last_json(out)
    assert stopped["outcome"] == result["outcome"] == "completed"
    assert stopped["asked"] == stopped["ended_by"] == result["ended_by"]
    outcomes = [trial["outcome"] for trial in result["ranking"]]
    assert outcomes.count("interrupted") <= 2 and len(outcomes) < MANY
    assert set(outcomes) <= {"completed", "interrupted"}
    check_recorded(store, result)
    check_champion(store, result)
    run = client(store).get_run(result["run_id"])
    assert run.info.status == "FINISHED" and run.data.tags["ended_by"] == result["ended_by"]
    assert result["champion"]["version"] == "1"
    assert result["ended_by"] in Path(result["report"]).read_text()

    # Notices: the server failed first, and its URL is nowhere.
    assert server.events()[0] == "new best" and server.events()[-1] == "ended"
    last = server.received[-1]
    assert last["value"] == result["champion"]["value"] and last["family"] == "vae"
    assert result["ended_by"] in last["text"] and last["resume"] == result["resume"]
    assert PATH not in log.read_text() + out
    for path in store.rglob("*"):
        assert not path.is_file() or PATH.encode() not in path.read_bytes(), path

    # Resumed, it goes on: what was interrupted too, and each trial has each epoch once.
    before = usage(store)
    more = ["--max-hours", str(before.hours + 0.002)]
    whole = resume_search(store, folder.name, log, *more)
    after = {trial["trial_id"]: trial["epochs"] for trial in whole["ranking"]}
    assert all(after[trial["trial_id"]] >= trial["epochs"] for trial in result["ranking"])
    assert len(after) > len(outcomes) or sum(after.values()) > sum(
        trial["epochs"] for trial in result["ranking"]
    )
    check_recorded(store, whole)
    assert usage(store).seconds > before.seconds > 0
    assert main(["stop", folder.name, "--store", str(store)]) == 2
    assert "expected one that is running" in capsys.readouterr().err


@pytest.mark.long
def test_each_budget_ends_a_search_which_goes_on_with_a_larger_one(tmp_path: Path) -> None:
    store, log = tmp_path / "runs", tmp_path / "log"
    args = [*SEARCH, "--max-concurrent", "1", "--store", str(store)]
    first = run_process([*args, "--max-device-hours", "0.0001"], log)
    assert first["ended_by"].startswith("--max-device-hours 0.0001 is used up")
    assert first["outcome"] == "completed" and len(first["ranking"]) < TRIALS
    assert first["device_hours"] == pytest.approx(first["hours"])  # of one fused worker
    (folder,) = (store / "searches").iterdir()

    # The budget is used up already: no Ray is started.
    again = resume_search(store, folder.name, log, "--address", "127.0.0.1:1")
    assert again["ended_by"] == first["ended_by"] and again["hours"] == first["hours"]

    more = first["hours"] + 0.0001
    larger = ["--max-device-hours", "1", "--max-hours", str(more)]
    second = resume_search(store, folder.name, log, *larger)
    assert second["ended_by"].startswith("--max-hours ") and second["hours"] >= more
    before = {trial["trial_id"]: trial["epochs"] for trial in first["ranking"]}
    after = {trial["trial_id"]: trial["epochs"] for trial in second["ranking"]}
    assert all(after[trial_id] >= epochs for trial_id, epochs in before.items())
    assert sum(after.values()) > sum(before.values())

    third = resume_search(store, folder.name, log, "--max-hours", "1", "--stop-when-flat", "1")
    assert third["ended_by"].startswith("--stop-when-flat 1: 1 trials ended without a val/nll/iw8")
    assert len(after) <= len(third["ranking"]) < TRIALS
    check_recorded(store, third)
    check_champion(store, third)

    whole = resume_search(store, folder.name, log, "--stop-when-flat", "None")
    assert whole["ended_by"] == "" and len(whole["ranking"]) == TRIALS
    assert {(t["outcome"], t["epochs"]) for t in whole["ranking"]} == {("completed", EPOCHS)}
    check_recorded(store, whole)


@pytest.mark.long
def test_a_training_is_stopped_and_goes_on(tmp_path: Path, capsys: Capture) -> None:
    store, log = tmp_path / "runs", tmp_path / "log"
    args = ["train", "vae", *SMALL, "--features", "pca", "--batch-size", "16", "--epochs", "60"]
    args += ["--name", "a", "--store", str(store)]
    process = start([*args, "--json"], log)
    reports = store / "runs/a/journal/reports"
    wait_until((reports / "000002.json").exists, 300)
    stopped, _ = run_here(["stop", "a", "--wait", "--store", str(store)], capsys)
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 0, log.read_text()
    result = last_json(out)
    assert stopped["outcome"] == result["outcome"] == "stopped_early"
    assert stopped["ended_by"] == result["ended_by"] and 2 <= result["epoch"] < 60
    assert Path(result["checkpoint"], "model.json").is_file() and result["samples"]
    run = client(store).get_run(result["run_id"])
    assert run.info.status == "FINISHED" and run.data.tags["message"] == result["ended_by"]
    whole = run_process(args, log)
    assert (whole["outcome"], whole["epoch"], whole["ended_by"]) == ("completed", 60, "")
    assert whole["run_id"] == result["run_id"]


def test_a_failure_is_notified_of(tmp_path: Path) -> None:
    """A cluster that is not there, and trials that cannot be trained."""
    store, log = tmp_path / "runs", tmp_path / "log"
    with hook() as server:
        args: list[Any] = [*SEARCH, "--store", str(store), "--notify", server.url]
        process = start([*args, "--address", "127.0.0.1:1"], log)
        process.communicate(timeout=300)
    assert process.returncode != 0 and server.events() == ["failed"]
    assert "127.0.0.1:1" in server.received[0]["text"] and PATH not in log.read_text()
