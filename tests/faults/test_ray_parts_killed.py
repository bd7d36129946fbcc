"""Parts of Ray that are killed under a search: the process of a trial, and the raylet. The GCS was
killed by hand: the command ends a minute later, as Ray has it, and is resumed the same way."""

import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.pipeline import (
    SMALL,
    check_recorded,
    last_json,
    recorded_epochs,
    resume_search,
    start,
    wait_until,
)

import genpipe

pytestmark = pytest.mark.usefixtures("prepared_store")
EPOCHS = 30
SEARCH = (
    *("--trials", "4", "--epochs", str(EPOCHS), "--scheduler", "fifo", "--searcher", "random"),
    *SMALL,
    *("--batch-size", "32"),  # so that an epoch takes a while
)


def child(process: "subprocess.Popen[str]", word: str) -> psutil.Process:
    """Return the first of a command's processes with a word in its command line."""
    for each in psutil.Process(process.pid).children(recursive=True):
        try:
            if any(word in part for part in each.cmdline()[:1]):
                return each
        except psutil.Error:  # it has just ended
            continue
    raise AssertionError(f"no process with {word}")


@pytest.mark.parametrize("part", ["ray::ResourceTrainable", "raylet/raylet"])
def test_no_epoch_is_lost_nor_another(part: str, tmp_path: Path) -> None:
    store, log = tmp_path / "runs", tmp_path / "log"
    process = start(["search", "vae", "--store", str(store), *SEARCH, "--json"], log)
    wait_until(lambda: recorded_epochs(store, 3) > 1)
    child(process, part).kill()
    out, _ = process.communicate(timeout=300)
    if part == "ray::ResourceTrainable":  # Tune starts the trial again
        assert process.returncode == 0, log.read_text()
    if process.returncode == 0:
        result = last_json(out)
    else:  # of the raylet, unless all trials have ended before Ray notices: it cannot go on
        (search_id,) = (path.name for path in (store / "searches").iterdir())
        result = resume_search(store, search_id, log)
    check_all(store, result)


def check_all(store: Path, result: dict[str, Any]) -> None:
    """Check that each trial is whole, recorded once, and one of them what it is alone."""
    assert {trial["outcome"] for trial in result["ranking"]} == {"completed"}
    assert [trial["epochs"] for trial in result["ranking"]] == [EPOCHS] * 4
    check_recorded(store, result)
    again = genpipe.rerun(result["ranking"][0]["trial_id"], store=store)
    assert again.equal and again.epochs == again.digests == EPOCHS, again
