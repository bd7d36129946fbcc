"""The curve of a search: recorded as its trials end, and shown by MLflow while it runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support.mlflow_runs import histories
from support.search import METRIC, RecordingTracker, finish_tune, make_search, run_seeds, run_trial

from pipelines.catalog.sync import sync
from pipelines.evaluation.metric_names import BEST_CURVE
from pipelines.store.journal import Journal
from pipelines.tracking.base import Tracker
from pipelines.tracking.mlflow import BACKEND
from pipelines.tracking.mlflow.connection import connect
from pipelines.tracking.mlflow.reader import MlflowReader
from pipelines.tracking.queue import open_tracker
from pipelines.tuning.recorder import TrialEnded, TrialStarted
from pipelines.tuning.search_run import SearchRun
from pipelines.tuning.studies import run_seed_studies

CONFIG = {"optim": {"lr": 0.25}}
SECONDS = 60.0


def curve(search: SearchRun, *names: str) -> list[tuple[float, ...]]:
    """Return the metrics of these names of each record, the best value first; -1 for none."""
    records = list(search.folder.journal.records())
    assert [record.epoch for record in records] == list(range(1, len(records) + 1))
    wanted = (BEST_CURVE, *names)
    return [tuple(record.metrics.get(name, -1.0) for name in wanted) for record in records]


def resumed(search: SearchRun, tracker: Tracker | None = None) -> SearchRun:
    """Return the search in another process, after the first one was killed."""
    again = SearchRun(
        search.context, search.folder, tracker or RecordingTracker(), search.searched
    )
    again.start(search.run)
    return again


def end_again(search: SearchRun, trial_id: str, epochs: int, error: str | None = None) -> None:
    """Have Tune start a trial once more, whose epochs are recorded, and end it."""
    search.handle(TrialStarted(trial_id, CONFIG, epochs))
    search.handle(TrialEnded(trial_id, epochs, epochs, diverged=False, error=error))


# -- what is recorded ---------------------------------------------------------------------------
def test_each_trial_that_ends_is_a_step_of_the_curve(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    search.handle(TrialStarted("t9", CONFIG, 0))
    run_trial(search, "t1", [5.0, 3.0])
    run_trial(search, "t2", [4.0, 3.5, 3.75, 3.25])
    run_trial(search, "t3", [], error="no memory")
    run_trial(search, "t4", [2.0])
    counts = ("ended", "completed", "stopped_early", "failed", "running")
    assert curve(search, *(f"trials/{name}" for name in counts), "epochs_trained") == [
        (3.0, 1.0, 0.0, 1.0, 0.0, 1.0, 2.0),
        (3.0, 2.0, 1.0, 1.0, 0.0, 1.0, 6.0),
        (3.0, 3.0, 1.0, 1.0, 1.0, 1.0, 6.0),
        (2.0, 4.0, 1.0, 2.0, 1.0, 1.0, 7.0),
    ]
    assert [hours >= 0 for _, hours in curve(search, "device_hours")] == [True] * 4


def test_the_best_value_of_a_metric_that_should_be_large_rises(tmp_path: Path) -> None:
    search = make_search(tmp_path, metric="val/elbo", mode="max")
    for name, value in (("t1", -5.0), ("t2", -7.0), ("t3", -4.0)):
        run_trial(search, name, [9.0], metrics={"val/elbo": value})
    assert curve(search) == [(-5.0,), (-5.0,), (-4.0,)]


def test_a_trial_without_a_value_has_no_best_one(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    run_trial(search, "t1", [], error="no memory")
    assert BEST_CURVE not in search.folder.journal.record(1).metrics


def test_a_seed_study_has_a_curve(tmp_path: Path) -> None:
    search = make_search(tmp_path, trials=1, confirm=1, seeds=3)
    run_trial(search, "t1", [5.0])
    finish_tune(search)
    studies: dict[str, SearchRun] = {}
    with ExitStack() as leases:
        run_seed_studies(search, studies, lambda study: run_seeds(study, [3.0, 4.0, 2.0]), leases)
    study = studies["t1"]
    assert curve(study, "trials/ended") == [(3.0, 1.0), (3.0, 2.0), (2.0, 3.0)]


# -- kills and resumptions ------------------------------------------------------------------------
def test_an_end_that_tune_had_not_saved_is_no_further_step(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    run_trial(search, "t1", [5.0])
    run_trial(search, "t2", [4.0])
    before = curve(search, "trials/ended")
    again = resumed(search)
    end_again(again, "t1", 1)
    assert curve(again, "trials/ended") == before == [(5.0, 1.0), (4.0, 2.0)]
    run_trial(again, "t3", [6.0])
    assert curve(again, "trials/ended", "epochs_trained")[2:] == [(4.0, 3.0, 3.0)]


def test_a_trial_that_failed_and_is_tried_again_is_one_more_step(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    run_trial(search, "t1", [5.0], error="no memory")
    again = resumed(search)
    end_again(again, "t1", 1)
    names = ("trials/ended", "trials/failed", "epochs_trained")
    assert curve(again, *names) == [(5.0, 1.0, 1.0, 1.0), (5.0, 1.0, 0.0, 1.0)]


def test_an_end_before_which_the_process_was_killed_is_recorded_by_the_next(
    tmp_path: Path,
) -> None:
    search = make_search(tmp_path)
    run_trial(search, "t2", [4.0])
    run_trial(search, "t1", [3.0])
    expected = curve(search, "trials/ended", "epochs_trained")
    search.folder.journal.record_file(2).unlink()
    assert curve(resumed(search), "trials/ended", "epochs_trained") == expected


@pytest.mark.parametrize("step", [1, 2, 3])
def test_what_follows_a_damaged_record_is_recorded_anew(step: int, tmp_path: Path) -> None:
    search = make_search(tmp_path)
    for name, value in (("t3", 5.0), ("t1", 4.0), ("t2", 3.0)):
        run_trial(search, name, [value])
    expected = curve(search, "trials/ended")
    search.folder.journal.record_file(step).write_text("{")
    assert curve(resumed(search), "trials/ended") == expected


def test_a_search_of_an_older_version_gets_its_curve_when_it_is_resumed(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    for name, value in (("t3", 5.0), ("t1", 4.0), ("t2", 3.0)):
        run_trial(search, name, [value])
    shutil.rmtree(search.folder.journal.records_folder)
    assert curve(resumed(search), "trials/ended") == [(5.0, 1.0), (4.0, 2.0), (3.0, 3.0)]


def test_the_outcome_of_a_search_counts_its_whole_curve(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    run_trial(search, "t1", [5.0])
    run_trial(search, "t2", [4.0], end=False)
    search.close_open_trials()
    interrupted = search.folder.journal.outcome()
    assert interrupted and (interrupted.last_epoch, interrupted.summary) == (1, {})
    again = resumed(search)
    end_again(again, "t2", 1)
    run_trial(again, "t3", [3.0])
    finish_tune(again)
    again.finish(register=False)
    whole = again.folder.journal.outcome()
    assert whole and whole.last_epoch == 3 and whole.summary["trials/running"] == 0


# -- in MLflow ------------------------------------------------------------------------------------
@contextmanager
def process(search: SearchRun, uri: str, *, resume: bool = True) -> Iterator[SearchRun]:
    """Run the search in another process, which delivers to a database of MLflow."""
    store = search.context.store
    with open_tracker(uri, store) as tracker:
        this = resumed(search, tracker)
        yield this
        tracker.sync(search.folder.journal)  # what a burst of ends has left
        for trial in search.folder.trials():
            tracker.sync(trial.journal)
        assert tracker.flush(SECONDS)


def held(uri: str, journal: Journal) -> tuple[str, dict[str, list[tuple[int, float, int]]]]:
    """Return the status of a journal's run in MLflow, and all its points."""
    run_id = journal.delivered(uri)["run_id"]
    return connect(uri).get_run(run_id).info.status, histories(uri, run_id)


def test_mlflow_shows_the_curve_while_the_search_runs_and_after_kills_once(
    tmp_path: Path, mlflow_database: Path
) -> None:
    search = make_search(tmp_path)
    store, journal = search.context.store, search.folder.journal
    shutil.copy(mlflow_database, store.database)
    uri = f"sqlite:///{store.database}"
    with process(search, uri) as first:
        run_trial(first, "t1", [5.0, 3.0])
        first.handle(TrialStarted("t2", CONFIG, 0))
        assert first.tracker.flush(SECONDS)
        status, points = held(uri, journal)  # as it runs
        assert status == "RUNNING"
        assert [point[:2] for point in points[BEST_CURVE]] == [(1, 3.0)]
        assert [point[:2] for point in points["trials/running"]] == [(1, 0.0)]
    with process(search, uri) as second:  # after a kill
        end_again(second, "t1", 2)
        run_trial(second, "t2", [4.0, 2.0])
    status, points = held(uri, journal)
    assert (status, [p[:2] for p in points[BEST_CURVE]]) == ("RUNNING", [(1, 3.0), (2, 2.0)])
    with process(search, uri) as third:
        run_trial(third, "t3", [9.0])
        finish_tune(third)
        third.finish(register=False)
    status, points = held(uri, journal)
    assert status == "FINISHED"
    assert [point[:2] for point in points[BEST_CURVE]] == [(1, 3.0), (2, 2.0), (3, 2.0)]
    assert [point[:2] for point in points["trials/ended"]] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert [point[0] for point in points[f"best/{METRIC}"]] == [3]
    row = MlflowReader(uri, store).run("search-1")
    assert row.epoch == 0  # it has no epochs

    # From the journals alone, MLflow gets the same.
    shutil.copy(mlflow_database, tmp_path / "new.db")
    elsewhere = f"sqlite:///{tmp_path}/new.db"
    with BACKEND.settings():
        assert not sync(store=store.root, tracking_uri=elsewhere).failed
        assert held(elsewhere, journal) == (status, points)
