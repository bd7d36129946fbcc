"""Tune's own state is torn by a kill, or was never written: the journals tell how to go on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.pipeline import (
    SMALL,
    check_recorded,
    recorded_epochs,
    resume_search,
    search_killed_when,
)

from pipelines.config.search import Search
from pipelines.config.serialization import recorded_search
from pipelines.store.layout import SearchFolder, Store
from pipelines.tuning.tuner import why_anew

pytestmark = pytest.mark.usefixtures("prepared_store")
TRIALS, EPOCHS = 6, 6


def killed_search(store: Path, searcher: str) -> Path:
    """Start a search and kill it while its first trials have ended and others run; return its
    folder."""
    args = ("--trials", str(TRIALS), "--epochs", str(EPOCHS), "--scheduler", "fifo", *SMALL)
    return search_killed_when(
        lambda: len(ended(store)) >= 2 and recorded_epochs(store, 2) > len(ended(store)),
        store,
        (*args, "--max-concurrent", "2", "--searcher", searcher),
        store.with_suffix(".log"),
    )


def ended(store: Path) -> dict[str, dict[str, Any]]:
    """Return the outcomes of the trials that have ended."""
    paths = store.glob("searches/*/trials/*/journal/outcome.json")
    return {path.parents[1].name: json.loads(path.read_text()) for path in paths}


def reports(store: Path) -> dict[Path, str]:
    """Return the recorded epochs."""
    paths = store.glob("searches/*/trials/*/journal/reports/*.json")
    return {path.relative_to(store): path.read_text() for path in paths}


@pytest.mark.parametrize("searcher", ["random", "tpe"])
def test_a_search_goes_on_without_tune_s_state(searcher: str, tmp_path: Path) -> None:
    store = tmp_path / "runs"
    folder = killed_search(store, searcher)
    if searcher == "random":
        run = recorded_search(Store.at(store), folder.name, "resume")
        check_damage_is_found(run, folder / "tune", SearchFolder.at(tmp_path / "copy"))
        for path in (folder / "tune").glob("experiment_state-*.json"):
            path.unlink()  # as if it was killed before Tune had saved any
    else:
        (state,) = (folder / "tune").glob("experiment_state-*.json")
        state.write_bytes(state.read_bytes()[:500])
    outcomes, before = ended(store), reports(store)
    log = store.with_suffix(".log")
    result = resume_search(store, folder.name, log)
    assert "goes on with what the journals hold: " in log.read_text()
    trials = {trial["trial_id"]: trial for trial in result["ranking"]}
    assert len(trials) == TRIALS
    assert {trial["outcome"] for trial in trials.values()} == {"completed"}
    check_recorded(store, result)
    # What had ended is as it was, and each of the others went on: no epoch was trained twice.
    started = {path.parts[3] for path in before}
    assert started <= trials.keys() and outcomes.keys() <= trials.keys()
    after = reports(store)
    assert {path: after[path] for path in before} == before
    assert len(after) == TRIALS * EPOCHS


def check_damage_is_found(run: Search, tune: Path, copy: SearchFolder) -> None:
    """Check that each file of Tune's state is missed, and each damage to it seen."""
    shutil.copytree(tune, copy.tune)
    assert why_anew(run, copy) is None
    assert "it was made for 6 trials" in (why_anew(replace(run, trials=7), copy) or "")
    shutil.rmtree(copy.tune)
    names = [path.name for path in tune.iterdir() if path.suffix in (".json", ".pkl")]
    assert len(names) >= 5, names
    for name in names:
        for content in (b"", b"garbage", (tune / name).read_bytes()[:-20]):
            shutil.copytree(tune, copy.tune)
            (copy.tune / name).write_bytes(content)
            assert "cannot be read" in (why_anew(run, copy) or ""), (name, content[:20])
            shutil.rmtree(copy.tune)
