"""What every tracking system does, by its protocols: MLflow's, and the one in memory of the tests.

Nothing here knows which one it is.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.evaluation import untrained
from support.journals import METRIC, open_journal, write_epochs

from gen_models.core.checkpoint import load_checkpoint
from gen_models.core.data import DataSpec
from gen_models.core.errors import InputError
from pipelines.config.run import Train, defaults
from pipelines.config.serialization import dump_config
from pipelines.store.files import LOCAL
from pipelines.store.journal import Journal, Outcome
from pipelines.store.layout import Store
from pipelines.tracking.base import RunReader, RunRow, find_backend, tracking_uri
from pipelines.tracking.queue import pending_journals


@pytest.fixture(params=["mlflow", "memory"])
def place(request: pytest.FixtureRequest, store: Store) -> Any:
    """A tracking system that holds nothing yet: its URI."""
    if request.param == "mlflow":
        return request.getfixturevalue("uri")
    request.getfixturevalue("memory_server")
    return tracking_uri(store, "memory://test")


@pytest.fixture
def tracker(place: str, store: Store) -> "Tracker":
    return Tracker(place, store)


class Tracker:
    """Delivers and reads as commands do: with a new writer and a new reader each time."""

    def __init__(self, uri: str, store: Store) -> None:
        self.uri, self.store, self.backend = uri, store, find_backend(uri)

    def deliver(self, journal: Journal, upto: int | None = None) -> str:
        writer = self.backend.writer(self.uri, self.store)
        writer.prepare()
        writer.deliver(journal, upto)
        return str(journal.delivered()["run_id"])

    @property
    def reader(self) -> RunReader:
        return self.backend.reader(self.uri, self.store)

    def row(self, name: str) -> RunRow:
        return self.reader.run(name)

    def pending(self) -> list[Path]:
        found = pending_journals(self.store, self.uri, self.backend)
        return [journal.run_folder for journal in found]


def test_a_run_is_delivered_as_it_goes_on(tracker: Tracker, store: Store) -> None:
    journal = open_journal(store.run("a").path)
    write_epochs(journal, 1, 2)
    run_id = tracker.deliver(journal, upto=1)
    row = tracker.row("a")
    assert (row.run_id, row.name, row.experiment, row.kind) == (run_id, "a", "vae-digits", "run")
    assert (row.status, row.outcome, row.epoch) == ("RUNNING", "", 1)
    assert row.params == {"model.latent_dim": "16"} and row.tags["family"] == "vae"
    assert row.metrics[METRIC] == -1.0
    assert tracker.deliver(journal) == run_id
    assert tracker.row(run_id).epoch == 2 and tracker.row(run_id).metrics[METRIC] == -2.0


@pytest.mark.parametrize(
    ("ending", "status"),
    [("completed", "FINISHED"), ("stopped_early", "FINISHED"), ("diverged", "FAILED")],
)
def test_a_run_that_ends_has_its_outcome(
    ending: Any, status: str, tracker: Tracker, store: Store
) -> None:
    journal = open_journal(store.run("a").path)
    write_epochs(journal, 1, 2, 3)
    journal.close(Outcome(ending, 2, {"best/val/elbo": -1.0}, {"best_epoch": "1"}))
    assert tracker.pending() == [journal.run_folder]
    tracker.deliver(journal)
    row = tracker.row("a")
    assert (row.status, row.outcome, row.epoch) == (status, ending, 2)
    assert row.metrics["best/val/elbo"] == -1.0 and row.metrics[METRIC] == -2.0
    assert row.tags["best_epoch"] == "1" and tracker.pending() == []


def test_a_resumed_run_is_the_same_run_and_goes_on(tracker: Tracker, store: Store) -> None:
    journal = open_journal(store.run("a").path)
    write_epochs(journal, 1)
    journal.close(Outcome("interrupted", 1))
    run_id = tracker.deliver(journal)
    journal = open_journal(store.run("a").path)
    write_epochs(journal, 1, 2)
    assert tracker.deliver(journal) == run_id
    assert (tracker.row("a").status, tracker.row("a").outcome) == ("RUNNING", "")
    journal.close(Outcome("completed", 2))
    assert tracker.deliver(journal) == tracker.deliver(journal) == run_id
    (row,) = tracker.reader.list_runs()
    assert (row.status, row.epoch) == ("FINISHED", 2)


def test_a_trial_brings_its_search_with_it(tracker: Tracker, store: Store) -> None:
    search = store.search("s")
    open_journal(search.path, kind="search", search_id="s")
    trial = {"kind": "trial", "search_id": "s", "trial_id": "t0", "parent": "../.."}
    tracker.deliver(open_journal(search.trial("t0").path, **trial))
    rows = {row.name: row for row in tracker.reader.list_runs()}
    assert {name: row.kind for name, row in rows.items()} == {"s": "search", "t0": "trial"}
    assert (rows["t0"].search_id, rows["t0"].trial_id) == ("s", "t0")


def test_runs_are_listed_by_experiment_and_tags(tracker: Tracker, store: Store) -> None:
    for name, experiment, kind in [("a", "x", "run"), ("b", "x", "search"), ("c", "y", "run")]:
        tracker.deliver(open_journal(store.run(name).path, experiment=experiment, kind=kind))

    def names(*arguments: Any) -> set[str]:
        return {row.name for row in tracker.reader.list_runs(*arguments)}

    assert names() == {"a", "b", "c"} and names("x") == {"a", "b"}
    assert names("x", {"kind": "search"}) == {"b"} and names(None, {"family": "vae"}) == names()
    assert names(None, {"family": "gan"}) == set()
    with pytest.raises(InputError, match=r"experiment = 'z': expected one of .*x, y"):
        names("z")


def test_no_more_runs_are_listed_than_are_asked_for(tracker: Tracker, store: Store) -> None:
    for index in range(5):
        journal = open_journal(store.run(f"r{index}").path, params={"seed": index})
        os.utime(journal.folder / "identity.json", (index + 1, index + 1))
        tracker.deliver(journal)
    seen: list[str] = []

    def is_even(row: RunRow) -> bool:
        seen.append(row.name)
        return int(row.params["seed"]) % 2 == 0

    assert [row.name for row in tracker.reader.list_runs(num=2)] == ["r4", "r3"]
    found = tracker.reader.list_runs(where=is_even, num=2)
    assert [row.name for row in found] == ["r4", "r2"] and seen[:3] == ["r4", "r3", "r2"]
    assert [row.name for row in tracker.reader.list_runs(where=is_even)] == ["r4", "r2", "r0"]


def test_a_run_is_found_by_the_beginning_of_its_id(tracker: Tracker, store: Store) -> None:
    run_id = tracker.deliver(open_journal(store.run("a").path, name="a"))
    assert tracker.row(run_id[:8]).run_id == run_id
    with pytest.raises(InputError, match=run_id[:7]):
        tracker.row(run_id[:7])
    named = tracker.deliver(open_journal(store.run("b").path, name=run_id[:8]))
    assert tracker.row(run_id[:8]).run_id == named  # a name comes first


def test_a_run_is_found_by_one_name_only(tracker: Tracker, store: Store) -> None:
    for folder in ("1", "2"):
        tracker.deliver(open_journal(store.run(folder).path, name="twice"))
    with pytest.raises(InputError, match="expected one run; give an id of"):
        tracker.row("twice")
    for name in ("nothing", "0" * 32, "none@champion", "models:/none/1"):
        with pytest.raises(InputError, match="expected"):
            tracker.row(name)


def test_the_config_is_read_back(tracker: Tracker, store: Store) -> None:
    run = replace(defaults(Train, "vae"), batch_size=7)
    store.files.write(store.run("a").config, dump_config(run))
    for name in ("a", "b"):
        tracker.deliver(open_journal(store.run(name).path))
    assert tracker.reader.config(tracker.row("a")) == run
    recovered = tracker.reader.config(tracker.row("b"))  # it has no config.json
    assert recovered.model.latent_dim == 16 and recovered.batch_size == 128


def test_a_model_is_registered_and_its_checkpoint_read_back(
    tracker: Tracker, store: Store, tmp_path: Path
) -> None:
    for name, value in (("good", -1.0), ("poor", -2.0)):
        folder = store.run(name)
        untrained("vae", DataSpec((1, 4, 4)), folder.path / "best")
        journal = open_journal(folder.path)
        claim = {"metric": METRIC, "mode": "max", "value": value}
        best = str(folder.path / "best")
        journal.close(Outcome("completed", 0, checkpoint=best, register="m", champion=claim))
        tracker.deliver(journal)
    delivered = [store.run(name).journal.delivered() for name in ("good", "poor")]
    assert [(d["version"], d["is_champion"]) for d in delivered] == [("1", True), ("2", False)]
    assert all(d["model_uri"] and "model_error" not in d for d in delivered)
    for name in ("m@champion", "models:/m@champion", "models:/m/1"):
        assert tracker.row(name).name == "good"
    assert tracker.row("models:/m/2").name == "poor"

    LOCAL.remove(store.run("good").path / "best")
    fetched = tracker.reader.checkpoint("m@champion", tmp_path / "fetched")
    assert fetched.is_relative_to(tmp_path / "fetched")
    assert load_checkpoint(fetched).family == "vae"
    assert tracker.reader.checkpoint(str(fetched), tmp_path) == fetched
    tracker.deliver(open_journal(store.run("bare").path))
    with pytest.raises(InputError, match=r"run bare \(.*\) has no checkpoint"):
        tracker.reader.checkpoint("bare", tmp_path)


def test_an_evaluation_is_added_to_its_run(tracker: Tracker, store: Store) -> None:
    run_id = tracker.deliver(open_journal(store.run("a").path))
    evaluation = store.evaluation(run_id)
    for value in (1.0, 2.0):  # the latest one counts
        evaluation.write(run_id, {"test/fd": value}, {"test_digest": "d"}, {})
        assert tracker.pending() == [evaluation.folder]
        writer = tracker.backend.writer(tracker.uri, store)
        writer.deliver_evaluation(evaluation)
        assert tracker.row("a").metrics["test/fd"] == value and tracker.pending() == []
    assert tracker.row("a").tags["test_digest"] == "d"
