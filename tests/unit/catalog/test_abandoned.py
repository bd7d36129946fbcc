"""Runs whose command was killed are closed as interrupted, once, with the command that resumes
them."""

from __future__ import annotations

import json
import os
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.journals import open_journal, write_checkpoint, write_epochs
from support.tracking import BACKEND, MemoryServer

from pipelines.catalog.abandoned import close_abandoned
from pipelines.catalog.runs import best, runs
from pipelines.catalog.sync import sync
from pipelines.report.results import RunsResult
from pipelines.store import lease
from pipelines.store.journal import Journal, Outcome, as_json
from pipelines.store.layout import RunFolder, SearchFolder, Store
from pipelines.store.lease import Holder, holding

URI = "memory://test"
METRIC = "val/elbo"
TAGS = {"family": "vae", "metric": METRIC, "mode": "max", "data_digest": "d"}


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_SILENT_SECONDS", 0.5)
    monkeypatch.setattr(lease, "_PATIENCE_SECONDS", 0.0)


@pytest.fixture
def server(memory_server: MemoryServer) -> MemoryServer:
    return memory_server


def killed_run(store: Store, name: str = "a", *, deliver: bool = True) -> RunFolder:
    """A run of two epochs without an outcome."""
    folder = store.run(name)
    tags = {**TAGS, "rerun": "genpipe train vae --data digits --epochs 9"}
    _begin(folder, name=name, kind="run", trial_id=name, tags=tags)
    if deliver:
        BACKEND.writer(URI, store).deliver(folder.journal)
    return folder


def killed_search(store: Store, search_id: str = "s", **changes: Any) -> SearchFolder:
    """A search with a trial that has ended and one that has not."""
    folder = store.search(search_id)
    tags = {**TAGS, "rerun": "genpipe search vae --trials 3 --data digits"}
    info: dict[str, Any] = {"kind": "search", "search_id": search_id, "tags": tags, **changes}
    info["tags"] = {**tags, **info["tags"]}
    open_journal(folder.path, **info)
    for number in (1, 2):
        trial = folder.trial(f"{search_id}-t{number}")
        own = {"kind": "trial", "search_id": search_id, "trial_id": trial.name}
        _begin(trial, tags=TAGS, parent=os.path.relpath(folder.path, trial.path), **own)
        if number == 1:
            trial.journal.close(Outcome("completed", 2, {f"best/{METRIC}": -1.0}))
        BACKEND.writer(URI, store).deliver(trial.journal)
    BACKEND.writer(URI, store).deliver(folder.journal)
    return folder


def _begin(folder: RunFolder, **info: Any) -> None:
    journal = open_journal(folder.path, params={"data": "digits"}, **info)
    write_epochs(journal, 1, 2)
    for epoch in (1, 2):
        write_checkpoint(folder.path, epoch)


def listed(store: Store, **settings: Any) -> RunsResult:
    return runs(store=store.root, tracking_uri=URI, **settings)


def outcomes(result: RunsResult) -> dict[str, str]:
    return {run.name: run.outcome for run in result.runs}


def test_a_run_whose_command_was_killed_is_interrupted(server: MemoryServer, store: Store) -> None:
    folder = killed_run(store)
    (row,) = listed(store).runs
    assert (row.outcome, row.status, row.epoch) == ("interrupted", "KILLED", 2)
    assert row.metrics[f"best/{METRIC}"] == -1.0 and row.metrics["best/epoch"] == 1
    outcome = folder.journal.outcome()
    assert outcome and (outcome.ending, outcome.last_epoch) == ("interrupted", 2)
    assert outcome.tags["message"] == "its command ended without closing it"
    server.requests.clear()
    assert listed(store).runs == (row,)
    assert server.requests == [("", None)]  # to list them: it is closed once


def test_the_command_that_resumes_it_is_named(server: MemoryServer, store: Store) -> None:
    folder = killed_run(store)
    config = {"config": {"tracking_uri": "http://here:5000"}}
    folder.files.write(folder.config, json.dumps(config))
    command = "genpipe train vae --data digits --epochs 9 --name a --tracking-uri http://here:5000"
    command += f" --store {shlex.quote(str(store.root))}"
    result = listed(store)
    assert result.resume == {"a": command}
    assert json.loads(result.to_json())["resume"] == {"a": command}
    found = best("vae", metric=METRIC, store=store.root, tracking_uri=URI)
    assert found.resume == {"a": command} and found.ranking[0].outcome == "interrupted"


def test_the_trials_of_a_killed_search_are_interrupted_and_it_is_named_once(
    server: MemoryServer, store: Store
) -> None:
    folder = killed_search(store)
    result = listed(store)
    assert outcomes(result) == {"s": "interrupted", "s-t1": "completed", "s-t2": "interrupted"}
    store_flag = f"--store {shlex.quote(str(store.root))}"
    assert result.resume == {"s": f"genpipe search vae --resume s {store_flag}"}
    outcome = folder.journal.outcome()
    assert outcome and (outcome.ending, outcome.summary) == ("interrupted", {})
    newest = listed(store, num=1)  # the search itself is not listed
    assert [run.kind for run in newest.runs] == ["trial"] and newest.resume == result.resume


def test_what_a_command_works_on_is_left_alone(server: MemoryServer, store: Store) -> None:
    run, search = killed_run(store), killed_search(store)
    with holding(run, "name"), holding(search, "resume"):
        result = listed(store)
        running = {"a": "running", "s": "running", "s-t1": "completed", "s-t2": "running"}
        assert outcomes(result) == running and not result.resume
    assert set(listed(store).resume) == {"a", "s"}
    with holding(search, "resume"):  # it was resumed, and has not opened its trials yet
        assert set(listed(store).resume) == {"a"}


def test_what_has_ended_is_not_looked_at(server: MemoryServer, store: Store) -> None:
    folder = killed_run(store)
    folder.journal.close(Outcome("completed", 2))
    BACKEND.writer(URI, store).deliver(folder.journal)
    assert outcomes(listed(store)) == {"a": "completed"} and not folder.leases.exists()


def elsewhere(folder: RunFolder, age: float) -> None:
    """Let a process of another machine hold the lease, whose last heartbeat was `age` seconds
    ago."""
    path = folder.leases / "000001.json"
    folder.files.write(path, as_json(vars(replace(Holder.here(), system="elsewhere"))))
    os.utime(path, (time.time() - age, time.time() - age))


def test_holders_elsewhere_are_waited_for_together(server: MemoryServer, store: Store) -> None:
    for number in range(30):
        elsewhere(killed_run(store, f"dead-{number}"), age=3600)
    elsewhere(killed_run(store, "alive"), age=0)
    began = time.monotonic()
    close_abandoned(store)
    assert time.monotonic() - began < 30 * 0.5
    assert [each.run_folder.name for each in store.open_journals()] == ["alive"]


def test_a_seed_study_of_a_search_is_resumed_by_the_search(
    server: MemoryServer, store: Store
) -> None:
    killed_search(store)
    of = {"confirms": "7", "confirms_name": "s-t1", "confirms_search": "s"}
    tags = {**of, "rerun": "genpipe confirm 7 --seeds 5"}
    killed_search(store, "s-s-t1-5-seeds", kind="confirmation", tags=tags)
    assert set(listed(store).resume) == {"s"}
    killed_search(store, "vae-confirm-1", kind="confirmation", tags=tags)
    command = listed(store).resume["vae-confirm-1"]
    assert command.startswith("genpipe confirm 7 --resume vae-confirm-1 --store ")


def test_what_lies_in_another_store_cannot_be_resumed_from_here(
    server: MemoryServer, store: Store, tmp_path: Path
) -> None:
    other = Store.at(tmp_path / "other")
    killed_run(store)
    close_abandoned(store)
    sync(store=store.root, tracking_uri=URI)
    killed_run(other, deliver=False)  # of the same name
    result = runs(store=other.root, tracking_uri=URI)
    assert [run.outcome for run in result.runs] == ["interrupted"] * 2
    assert len(result.resume) == 1
    assert str(other.root) in result.resume["a"]


def test_damaged_journals_stop_no_other(
    server: MemoryServer, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    damaged, folder = killed_run(store, "damaged"), killed_run(store, "a")
    (damaged.journal.folder / "identity.json").write_text("{")
    listed(store)
    assert folder.journal.outcome() and not damaged.journal.outcome()
    assert "damaged is set aside" in caplog.text


def test_an_epoch_that_is_damaged_is_left_out(server: MemoryServer, store: Store) -> None:
    folder = killed_run(store)
    folder.journal.record_file(2).write_text("")
    listed(store)
    outcome = folder.journal.outcome()
    assert outcome and outcome.last_epoch == 1


def test_a_store_that_cannot_be_written_to_is_listed(
    server: MemoryServer,
    store: Store,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = killed_run(store)
    folder.leases.write_text("")  # no folder can be made in its place, whoever the user is
    assert outcomes(listed(store)) == {"a": "running"}
    assert "a is interrupted, which cannot be recorded" in caplog.text


def test_sync_records_a_killed_run_as_interrupted(server: MemoryServer, store: Store) -> None:
    killed_run(store, deliver=False)
    sync(store=store.root, tracking_uri=URI)
    assert server.run("a").row.status == "KILLED"


def test_a_run_of_an_old_version_whose_metric_is_not_known(
    server: MemoryServer, store: Store
) -> None:
    journal = open_journal(store.run("a").path, tags={"family": "vae"})
    write_epochs(journal, 1)
    result = listed(store)
    assert outcomes(result) == {"a": "interrupted"} and not result.resume
    outcome = Journal(journal.run_folder).outcome()
    assert outcome and (outcome.ending, outcome.last_epoch) == ("interrupted", 1)
