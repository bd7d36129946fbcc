"""Two commands of one run or search at once, and a command that was killed."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sqlite3
import subprocess
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from support.pipeline import (
    SMALL,
    Capture,
    check_recorded,
    client,
    kill,
    last_json,
    recorded_epochs,
    run_here,
    start,
    wait_until,
)

from pipelines.store.files import LOCAL
from pipelines.store.journal import as_json
from pipelines.store.lease import Holder

pytestmark = pytest.mark.usefixtures("prepared_store")


def ended(process: subprocess.Popen[str], log: Path) -> tuple[int, str]:
    """Return the exit code of a command, and what it has printed."""
    out, _ = process.communicate(timeout=400)
    return process.returncode, log.read_text() + out


def suspend(process: subprocess.Popen[str], store: Path) -> None:
    """Suspend a command, so that it has not ended when another begins, at a moment when it does
    not hold the database."""
    while True:
        process.send_signal(signal.SIGSTOP)
        database = closing(sqlite3.connect(store / "mlflow.db", timeout=0))
        with database as connection, suppress(sqlite3.OperationalError):
            connection.execute("BEGIN EXCLUSIVE")
            return
        process.send_signal(signal.SIGCONT)
        time.sleep(0.05)


def check_refused(text: str, field: str, pid: int) -> None:
    expected = rf"error: {field} = '.*': expected one that no other command is working on: "
    expected += rf"process {pid} on {re.escape(os.uname().nodename)} has held it for \d+ (s|min)"
    assert re.search(expected, text), text
    assert "Traceback" not in text and "Ray" not in text


def test_one_search_by_two_commands(tmp_path: Path, capsys: Capture) -> None:
    store, log = tmp_path / "runs", tmp_path / "0.log"
    search = ["search", "vae", "--store", str(store)]
    sizes = ["--trials", "3", "--epochs", "40", "--scheduler", "fifo", "--searcher", "random"]
    first = start([*search, *SMALL, *sizes], log)
    wait_until(lambda: recorded_epochs(store, 1) >= 1, 400)
    suspend(first, store)
    (folder,) = (store / "searches").iterdir()
    resume = [*search, "--resume", folder.name]
    code, text = ended(start(resume, tmp_path / "1.log"), tmp_path / "1.log")
    assert code == 2
    check_refused(text, "resume", first.pid)
    listed, _ = run_here(["runs", "--store", str(store)], capsys)
    assert {run["outcome"] for run in listed["runs"]} == {"running"} and not listed["resume"]
    kill(first)

    for _ in range(2):
        listed, _ = run_here(["runs", "--store", str(store)], capsys)
        assert {run["outcome"] for run in listed["runs"]} == {"interrupted"}
        assert {run["status"] for run in listed["runs"]} == {"KILLED"}
    assert set(listed["resume"]) == {folder.name}
    command = shlex.split(listed["resume"][folder.name])
    resume = ["genpipe", "search", "vae", "--resume", folder.name, "--store", str(store)]
    assert command == resume
    logs = [tmp_path / f"{number}.log" for number in (2, 3)]
    both = [start([*command[1:], "--json"], each) for each in logs]
    told = list(map(ended, both, logs))
    assert sorted(code for code, _ in told) == [0, 2], told
    winner = told.index(min(told))
    check_refused(told[1 - winner][1], "resume", both[winner].pid)
    result = last_json(told[winner][1])
    assert [trial["epochs"] for trial in result["ranking"]] == [40] * 3
    check_recorded(store, result)
    assert client(store).get_run(result["run_id"]).info.status == "FINISHED"


def test_one_name_by_two_commands(tmp_path: Path, capsys: Capture) -> None:
    train = ["train", "vae", "--store", str(tmp_path), *SMALL, "--name", "a", "--epochs", "30"]
    logs = [tmp_path / f"{number}.log" for number in (0, 1, 2)]
    first = start(train, logs[0])
    wait_until(lambda: any((tmp_path / "runs/a/journal/reports").glob("*.json")), 400)
    suspend(first, tmp_path)
    code, text = ended(start(train, logs[1]), logs[1])
    assert code == 2
    check_refused(text, "name", first.pid)
    kill(first)
    listed, _ = run_here(["runs", "--store", str(tmp_path)], capsys)
    (run,) = listed["runs"]
    assert (run["outcome"], run["epoch"] > 0) == ("interrupted", True)
    command = shlex.split(listed["resume"]["a"])[1:]
    code, text = ended(start([*command, "--json"], logs[2]), logs[2])
    assert code == 0, text
    result = last_json(text)
    assert result["epoch"] == 30 and result["run_id"] == run["run_id"]


@pytest.mark.parametrize("command", ["search", "train"])
def test_a_command_whose_lease_was_taken_over_ends_and_closes_nothing(
    tmp_path: Path, command: str
) -> None:
    """As that of a node that was cut off, whose run another node has taken over."""
    log = tmp_path / "log"
    args = [command, "vae", "--store", str(tmp_path), *SMALL, "--epochs", "10000"]
    args += ["--trials", "2", "--scheduler", "fifo"] if command == "search" else []
    process = start(args, log)
    wait_until(lambda: any(tmp_path.glob("**/journal/reports/000001.json")), 400)
    (leases,) = tmp_path.glob("*/*/lease")
    other = replace(Holder.here(), host="another-node", system="another", token="another")
    LOCAL.write(leases / "000002.json", as_json(vars(other)))
    code, text = ended(process, log)
    assert code == 1
    assert f"genpipe {command}: {leases.parent}: another command works on it (process" in text
    assert "on another-node has held it for" in text and "Traceback" not in text
    assert not any(tmp_path.glob("**/outcome.json"))
    assert (leases / "000002.json").read_text() == as_json(vars(other))
