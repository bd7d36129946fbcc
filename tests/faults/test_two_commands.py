"""Two commands of one run or search at once: one works, and the other is refused."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from support.pipeline import (
    SMALL,
    check_recorded,
    kill,
    last_json,
    recorded_epochs,
    start,
    wait_until,
)

pytestmark = pytest.mark.usefixtures("prepared_store")
EPOCHS = 40


def ended(process, log: Path) -> tuple[int, str]:  # type: ignore[no-untyped-def]
    out, _ = process.communicate(timeout=400)
    return process.returncode, out + log.read_text()


def check_refused(text: str, field: str, pid: int) -> None:
    expected = rf"error: {field} = '.*': expected one that no other command is working on: "
    expected += rf"process {pid} on {re.escape(os.uname().nodename)} has held it for \d+ (s|min)"
    assert re.search(expected, text), text
    assert "Traceback" not in text and "Started a local Ray" not in text


def test_two_commands_resume_one_search(tmp_path: Path) -> None:
    store, log = tmp_path / "runs", tmp_path / "0.log"
    search = ["search", "vae", "--store", str(store)]
    sizes = ["--trials", "3", "--epochs", str(EPOCHS), "--scheduler", "fifo"]
    first = start([*search, *SMALL, *sizes, "--searcher", "random"], log)
    wait_until(lambda: recorded_epochs(store, 1) >= 1, 400)
    (folder,) = (store / "searches").iterdir()
    resume = [*search, "--resume", folder.name, "--json"]
    code, text = ended(start(resume, tmp_path / "1.log"), tmp_path / "1.log")
    assert code == 2
    check_refused(text, "resume", first.pid)
    assert first.poll() is None, "the second command came too late"
    kill(first)

    logs = [tmp_path / f"{number}.log" for number in (2, 3)]
    both = [start(resume, each) for each in logs]
    (code, text), (other_code, other_text) = map(ended, both, logs)
    assert sorted([code, other_code]) == [0, 2], text + other_text
    winner = code != 0
    check_refused(text if winner else other_text, "resume", both[winner].pid)
    check_recorded(store, last_json(other_text if winner else text))


def test_two_commands_train_one_name(tmp_path: Path) -> None:
    train = ["train", "vae", "--store", str(tmp_path), *SMALL, "--name", "a", "--epochs", "100"]
    logs = [tmp_path / f"{number}.log" for number in (0, 1)]
    both = [start(train, each) for each in logs]
    (code, text), (other_code, other_text) = map(ended, both, logs)
    assert sorted([code, other_code]) == [0, 2], text + other_text
    check_refused(text if code else other_text, "name", both[code != 0].pid)
    reports = sorted((tmp_path / "runs/a/journal/reports").glob("[0-9]*.json"))
    assert len(reports) == 100
