"""Everything is recorded anew from the journals, wherever MLflow's database has gone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.journals import METRIC, open_journal, write_epochs
from support.mlflow_runs import close, load_noise, pictures, steps, write_noise

from gen_models.core.errors import InputError
from pipelines.catalog.runs import runs
from pipelines.catalog.sync import sync
from pipelines.store.layout import Store
from pipelines.tracking.base import tracking_uri
from pipelines.tracking.mlflow import BACKEND, backend
from pipelines.tracking.mlflow.connection import connect
from pipelines.tracking.mlflow.reader import MlflowReader
from pipelines.tracking.mlflow.writer import MlflowWriter


@pytest.fixture(autouse=True)
def fast_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints are those of `write_noise`, exported in a moment."""

    def writer(self: Any, uri: str, store: Store) -> MlflowWriter:
        return MlflowWriter(uri, store, load_noise)

    monkeypatch.setattr(backend.MlflowBackend, "writer", writer)


@pytest.fixture
def recorded(store: Store) -> Store:
    """A search of two trials, two runs that claim the alias, and an evaluation, in MLflow."""
    search = open_journal(store.search("s").path, kind="search", search_id="s", key="s")
    for name in ("t0", "t1"):
        trial = store.search("s").trial(name).path
        journal = open_journal(trial, kind="trial", search_id="s", parent="../..", key=name)
        write_epochs(journal, 1, 2, 3, pictures=True)
        close(journal, 3)
    close(search, 0)
    for name, value in (("good", -1.0), ("poor", -2.0)):
        journal = open_journal(store.run(name).path, key=name)
        write_epochs(journal, 1)
        checkpoint = write_noise(store.run(name).path / "best", value)
        claim = {"metric": METRIC, "mode": "max", "value": value}
        close(journal, 1, checkpoint=str(checkpoint), register="vae-digits", champion=claim)
    assert sync(store=store.root).runs == 5
    run_id = store.run("good").journal.delivered()["run_id"]
    store.evaluation(run_id).write(run_id, {"test/fd": 2.0}, {"collapsed": "no"}, {})
    assert sync(store=store.root).evaluations == 1
    return store


def content(uri: str, store: Store) -> dict[str, Any]:
    """Return what MLflow holds, without the ids and times that it chose itself."""
    client = connect(uri)
    rows = {row.name: row for row in MlflowReader(uri, store).list_runs()}
    names = {row.run_id: name for name, row in rows.items()}
    held: dict[str, Any] = {}
    for name, row in rows.items():
        tags = {k: v for k, v in row.tags.items() if k not in ("previous_run_ids", "run_id")}
        tags["mlflow.parentRunId"] = names.get(tags.get("mlflow.parentRunId", ""), "")
        points = {
            key: [
                (p.step, p.value, p.timestamp) for p in client.get_metric_history(row.run_id, key)
            ]
            for key in row.metrics
        }
        held[name] = (row.status, row.params, tags, points, pictures(uri, row.run_id))
    for version in client.search_model_versions("name = 'vae-digits'"):
        held[f"version {version.version}"] = names[version.run_id]
    held["champion"] = client.get_model_version_by_alias("vae-digits", "champion").version
    return held


def place(uri: str) -> dict[str, Any]:
    return {"tracking_uri": uri}


def test_a_database_that_was_deleted_is_rebuilt(
    recorded: Store, mlflow_database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = tracking_uri(recorded)
    with BACKEND.settings():
        before = content(uri, recorded)
    recorded.database.rename(recorded.root / "lost.db")
    with pytest.raises(InputError, match="its database is missing, and `genpipe sync --store"):
        runs(store=recorded.root)
    shutil.copy(mlflow_database, recorded.root / "new.db")
    elsewhere = f"sqlite:///{recorded.root}/new.db"
    with BACKEND.settings():
        result = sync(store=recorded.root, tracking_uri=elsewhere)
        assert (result.runs, result.evaluations, result.failed) == (5, 1, ())
        assert content(elsewhere, recorded) == before
        earlier = recorded.run("good").journal.delivered(uri)["run_id"]
        assert MlflowReader(elsewhere, recorded).run(earlier).name == "good"
        assert sync(store=recorded.root, tracking_uri=elsewhere).runs == 5  # changes nothing
        assert content(elsewhere, recorded) == before
    assert "lacks runs" not in caplog.text


def test_a_database_that_was_replaced_is_noticed_and_filled_again(
    recorded: Store, mlflow_database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a new server behind the same address."""
    shutil.copy(recorded.database, recorded.root / "server.db")
    uri = f"sqlite:///{recorded.root}/server.db"
    with BACKEND.settings():
        sync(store=recorded.root, **place(uri))
        before = content(uri, recorded)
        # MLflow's client keeps files open: another name for the same database is a new client.
        for journal in recorded.journals():
            known = journal.delivered(uri)
            journal.mark_delivered({**known, "uri": f"sqlite:///{recorded.root}/empty.db"})
        shutil.copy(mlflow_database, recorded.root / "empty.db")
        replaced = f"sqlite:///{recorded.root}/empty.db"
        assert runs(store=recorded.root, **place(replaced)).runs == ()
        assert "lacks runs that were delivered to it, as after its database" in caplog.text
        assert f"sync --store {recorded.root} --tracking-uri {replaced}`" in caplog.text
        assert sync(store=recorded.root, **place(replaced)).runs == 5
        assert content(replaced, recorded) == before
        caplog.clear()
        assert len(runs(store=recorded.root, **place(replaced)).runs) == 5
        assert "lacks runs" not in caplog.text


def test_what_an_older_copy_of_the_database_lacks_is_added(recorded: Store) -> None:
    shutil.copy(recorded.database, recorded.root / "older.db")
    older = f"sqlite:///{recorded.root}/older.db"
    trial = recorded.search("s").trial("t0").journal
    trial.open(trial.info() or pytest.fail())  # resumed
    write_epochs(trial, 4, 5)
    close(trial, 5)
    with BACKEND.settings():
        sync(store=recorded.root)
        for journal in recorded.journals():  # what the copy lacks is believed to be there
            journal.mark_delivered({**journal.delivered(), "uri": older})
        sync(store=recorded.root, tracking_uri=older)
        row = MlflowReader(older, recorded).run("t0")
        assert steps(older, row.run_id) == [1, 2, 3, 4, 5]


def test_a_run_that_somebody_deleted_stays_deleted(recorded: Store) -> None:
    uri = tracking_uri(recorded)
    with BACKEND.settings():
        connect(uri).delete_run(recorded.run("poor").journal.delivered()["run_id"])
        sync(store=recorded.root)
        assert "poor" not in {row.name for row in MlflowReader(uri, recorded).list_runs()}


def test_a_damaged_journal_is_named_and_the_others_are_recorded(recorded: Store) -> None:
    (recorded.search("s").trial("t0").journal.record_file(2)).write_text("")
    recorded.database.unlink()
    result = sync(store=recorded.root, tracking_uri=f"sqlite:///{recorded.root}/new.db")
    assert result.runs == 4 and result.exit_code == 1
    assert [failure.name for failure in result.failed] == ["searches/s/trials/t0"]


def test_a_store_without_journals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a folder with journals of runs"):
        sync(store=tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
