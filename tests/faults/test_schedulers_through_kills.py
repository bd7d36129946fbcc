"""Schedulers that pause, copy and resume trials, in searches that are killed as a whole."""

import json
from functools import partial
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

import genpipe

pytestmark = pytest.mark.usefixtures("prepared_store")
EPOCHS = 9


def search_with_kills(store: Path, scheduler: str, kill_at: tuple[int, ...]) -> dict[str, Any]:
    """Search, kill every process of the search once two trials have recorded an epoch, resume, and
    so on; return the result."""
    log = store.with_suffix(".log")
    args = ("--trials", "4", "--epochs", str(EPOCHS), "--grace-period", "2", *SMALL)
    begin = (*args, "--scheduler", scheduler, "--searcher", "random")
    for epoch in kill_at:
        folder = search_killed_when(partial(two_recorded, store, epoch), store, begin, log)
        begin = ("--resume", folder.name)
    return resume_search(store, folder.name, log)


def two_recorded(store: Path, epoch: int) -> bool:
    return recorded_epochs(store, epoch) > 1


def schedules(store: Path, trial_id: str) -> dict[int, list[dict[str, Any]]]:
    """Return what led to the state after each epoch of a trial."""
    paths = sorted(store.glob(f"searches/*/trials/{trial_id}/journal/reports/*.json"))
    records = [json.loads(path.read_text()) for path in paths]
    return {each["epoch"]: each["context"]["schedule"] for each in records}


def test_population_based_training_goes_on_with_the_settings_of_its_weights(
    tmp_path: Path,
) -> None:
    store = tmp_path / "runs"
    result = search_with_kills(store, "pbt", (4,))
    outcomes = {trial["trial_id"]: trial["outcome"] for trial in result["ranking"]}
    assert len(outcomes) == 4 and set(outcomes.values()) == {"completed"}, outcomes
    check_recorded(store, result)
    trained = [schedules(store, trial_id) for trial_id in outcomes]
    assert all(list(each) == list(range(1, EPOCHS + 1)) for each in trained)
    copied = [i for i, each in zip(outcomes, trained, strict=True) if len(each[EPOCHS]) > 1]
    assert copied, "no trial copied another"
    for trial_id in copied[:1]:
        again = genpipe.rerun(trial_id, store=store)
        assert again.equal and again.epochs == again.digests == EPOCHS, again


def test_hyperband_s_brackets_go_on(tmp_path: Path) -> None:
    store = tmp_path / "runs"
    result = search_with_kills(store, "hyperband", (3,))
    outcomes = [trial["outcome"] for trial in result["ranking"]]
    assert len(outcomes) == 4 and set(outcomes) <= {"completed", "stopped_early"}, outcomes
    assert "completed" in outcomes
    check_recorded(store, result)
