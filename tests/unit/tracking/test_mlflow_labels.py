"""What MLflow shows of the tags and the note that a person gives."""

from pathlib import Path

from support.journals import open_journal, write_epochs
from support.mlflow_runs import close, deliver

from pipelines.catalog.sync import sync
from pipelines.store.journal import Journal, Labels
from pipelines.store.layout import Store
from pipelines.tracking.mlflow.connection import connect
from pipelines.tracking.queue import is_pending

FIRST = Labels({"team": "vision", "ticket": "1"}, "# First")
SECOND = Labels({"team": "audio"}, "# Second")


def record_run(store: Store, labels: Labels = FIRST) -> Journal:
    journal = open_journal(store.run("a").path)
    journal.label(labels)
    write_epochs(journal, 1)
    close(journal, 1)
    return journal


def tags_of(uri: str, run_id: str) -> dict[str, str]:
    return dict(connect(uri).get_run(run_id).data.tags)


def test_a_run_has_its_tags_and_its_note(uri: str, store: Store) -> None:
    tags = tags_of(uri, deliver(uri, store, record_run(store)))
    assert (tags["team"], tags["ticket"], tags["note"]) == ("vision", "1", "# First")
    assert tags["mlflow.note.content"] == "# First"


def test_other_labels_replace_those_of_a_run_that_has_ended(uri: str, store: Store) -> None:
    journal = record_run(store)
    run_id = deliver(uri, store, journal)
    assert not is_pending(journal, uri)
    journal.label(SECOND)
    assert is_pending(journal, uri)
    assert deliver(uri, store, journal) == run_id
    tags = tags_of(uri, run_id)
    assert (tags["team"], tags["mlflow.note.content"]) == ("audio", "# Second")
    assert "ticket" not in tags and not is_pending(journal, uri)


def test_a_tag_that_somebody_edited_stays(uri: str, store: Store) -> None:
    journal = record_run(store)
    run_id = deliver(uri, store, journal)
    connect(uri).set_tag(run_id, "ticket", "2")
    journal.label(Labels(FIRST.tags, "# Second"))
    deliver(uri, store, journal)
    assert tags_of(uri, run_id)["ticket"] == "2"


def test_the_trials_of_a_search_have_its_tags(uri: str, store: Store) -> None:
    folder = store.search("s1")
    search = open_journal(folder.path, kind="search", search_id="s1", tags={"metric": "val/elbo"})
    search.label(FIRST)
    of_search = {"kind": "trial", "search_id": "s1", "parent": "../.."}
    trial = open_journal(folder.trial("t1").path, trial_id="t1", **of_search)
    write_epochs(trial, 1)
    close(trial, 1)
    run_id = deliver(uri, store, trial)
    assert tags_of(uri, run_id)["team"] == "vision" and "note" not in tags_of(uri, run_id)
    search.label(SECOND)
    deliver(uri, store, trial)
    assert tags_of(uri, run_id)["team"] == "audio"


def test_a_store_that_is_recorded_anew_has_its_labels(
    uri: str, store: Store, tmp_path: Path
) -> None:
    deliver(uri, store, record_run(store))
    other = f"sqlite:///{tmp_path / 'other.db'}"
    sync(store=store.root, tracking_uri=other)
    (run,) = connect(other).search_runs(
        [each.experiment_id for each in connect(other).search_experiments()],
        "tags.team = 'vision'",
    )
    assert run.data.tags["mlflow.note.content"] == "# First"


def test_damaged_labels_hold_up_no_run(uri: str, store: Store) -> None:
    journal = record_run(store)
    (journal.folder / "labels.json").write_text("{")
    assert "team" not in tags_of(uri, deliver(uri, store, journal))
