"""MLflow holds of a run what its journal says, once, whatever was interrupted."""

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from support.journals import DIGEST, METRIC, PNG, open_journal, write_epochs
from support.mlflow_runs import (
    close,
    deliver,
    deliver_until_done,
    list_runs,
    lose_answer,
    pictures,
    steps,
    write_noise,
    writer,
)

from pipelines.store.journal import RunStatus
from pipelines.store.layout import Store
from pipelines.tracking.base import tracking_uri
from pipelines.tracking.mlflow import BACKEND
from pipelines.tracking.mlflow.connection import connect
from pipelines.tracking.mlflow.reader import MlflowReader
from pipelines.tracking.queue import pending_journals


def test_a_run_is_delivered_whole(uri: str, store: Store) -> None:
    params = {f"p{i:03}": i for i in range(250)} | {"long": "x" * 7000}
    journal = open_journal(store.root / "runs/a", params=params)
    write_epochs(journal, 1, 2, 3, pictures=True)
    close(journal, 3, summary={"best/val/elbo": -1.0}, tags={"best_epoch": "1"})
    run = connect(uri).get_run(deliver(uri, store, journal))

    assert run.info.run_name == "a" and run.info.status == "FINISHED"
    assert len(run.data.params) == 251 and len(run.data.params["long"]) == 6000
    assert run.data.tags["seed"] == "0" and run.data.tags["outcome"] == "completed"
    assert run.data.tags["best_epoch"] == "1"
    assert run.data.metrics["system/epoch"] == 3 and run.data.metrics["best/val/elbo"] == -1
    assert steps(uri, run.info.run_id) == steps(uri, run.info.run_id, "system/epoch") == [1, 2, 3]
    [dataset] = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("digits", DIGEST)
    assert {tag.key: tag.value for tag in dataset.tags} == {"mlflow.data.context": "training"}
    assert str(store.root / "artifacts") in run.info.artifact_uri


def test_points_carry_the_time_of_their_file(uri: str, store: Store) -> None:
    journal = open_journal(store.root / "runs/a")
    write_epochs(journal, 1)
    os.utime(journal.records_folder / "000001.json", (1_000_000, 1_000_000))
    run_id = deliver(uri, store, journal)
    assert connect(uri).get_metric_history(run_id, "system/epoch")[0].timestamp == 1_000_000_000


def test_pictures_make_a_grid_with_a_step_slider(uri: str, store: Store) -> None:
    journal = open_journal(store.root / "runs/a")
    write_epochs(journal, 1, 2, pictures=True)
    run_id = deliver(uri, store, journal)
    names = [f"samples+step+{e}+_{end}" for e in (1, 2) for end in ("+compressed.webp", ".png")]
    assert pictures(uri, run_id) == names
    assert connect(uri).get_run(run_id).data.tags["mlflow.loggedImages"] == "True"


def test_nonfinite_metrics_are_left_out(uri: str, store: Store) -> None:
    journal = open_journal(store.root / "runs/a")
    write_epochs(journal, 1, nan=float("nan"), inf=float("inf"))
    close(journal, 1, summary={"best": float("-inf")})
    metrics = connect(uri).get_run(deliver(uri, store, journal)).data.metrics
    assert set(metrics) == {"train/loss", "val/elbo", "system/epoch"}


def test_many_metrics_are_split_into_batches(uri: str, store: Store) -> None:
    """A batch holds at most 1,000 points: one epoch has more, and so have 400 epochs."""
    journal = open_journal(store.root / "runs/a")
    write_epochs(journal, 1, **{f"m{i}": float(i) for i in range(1500)})
    write_epochs(journal, *range(2, 401))
    run_id = deliver(uri, store, journal)
    assert len(connect(uri).get_run(run_id).data.metrics) == 1503
    assert sorted(steps(uri, run_id)) == list(range(1, 401))


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("completed", "FINISHED"),
        ("stopped_early", "FINISHED"),
        ("interrupted", "KILLED"),
        ("diverged", "FAILED"),
        ("failed", "FAILED"),
    ],
)
def test_every_status_has_one_of_mlflow_s(
    uri: str, store: Store, ending: RunStatus, status: str
) -> None:
    journal = open_journal(store.root / "runs/a")
    write_epochs(journal, 1)
    close(journal, 1, ending)
    run = connect(uri).get_run(deliver(uri, store, journal))
    assert (run.info.status, run.data.tags["outcome"]) == (status, ending)


def test_epochs_beyond_the_end_are_not_delivered(uri: str, store: Store) -> None:
    journal = open_journal(store.root / "runs/a")
    write_epochs(journal, 1, 2, 3, 4)
    deliver(uri, store, journal, upto=1)
    close(journal, 3, "stopped_early")
    run_id = deliver(uri, store, journal, upto=4)
    assert steps(uri, run_id) == [1, 2, 3]


def test_a_run_that_an_older_version_began_to_deliver_goes_on(uri: str, store: Store) -> None:
    journal = open_journal(store.root / "runs/a")
    run_id = deliver(uri, store, journal)
    client = connect(uri)
    for epoch in (1, 2):
        client.log_metric(run_id, METRIC, -float(epoch), epoch, epoch)
        client.log_metric(run_id, "epoch", float(epoch), epoch, epoch)
    assert MlflowReader(uri, store).run("a").epoch == 2
    write_epochs(journal, 1, 2, 3)
    deliver(uri, store, journal)
    assert steps(uri, run_id) == [1, 2, 3]
    assert MlflowReader(uri, store).run("a").epoch == 3


def test_a_trial_is_a_child_of_its_search(uri: str, store: Store) -> None:
    search = open_journal(store.root / "searches/s", kind="search", search_id="s")
    trial = open_journal(
        store.root / "searches/s/trials/1",
        kind="trial",
        search_id="s",
        trial_id="1",
        parent="../..",
    )
    write_epochs(trial, 1)
    child = connect(uri).get_run(deliver(uri, store, trial))
    parent = deliver(uri, store, search)
    assert child.data.tags["mlflow.parentRunId"] == parent
    assert (child.data.tags["search_id"], child.data.tags["trial_id"]) == ("s", "1")
    assert len(list_runs(uri, store)) == 2


def test_a_resumed_run_is_running_again(uri: str, store: Store) -> None:
    journal = open_journal(store.root / "runs/a")
    write_epochs(journal, 1, 2)
    close(journal, 2, "interrupted", summary={"best/val/elbo": -1.0})
    client = writer(uri, store)
    client.deliver(journal)

    open_journal(store.root / "runs/a")
    client.deliver(journal)
    run_id = journal.delivered()["run_id"]
    run = connect(uri).get_run(run_id)
    assert (run.info.status, run.data.tags["outcome"]) == ("RUNNING", "")

    write_epochs(journal, 2, 3)  # epoch 2 anew: its file is written again
    close(journal, 3, summary={"best/val/elbo": -1.0})
    assert deliver(uri, store, journal) == run_id
    assert connect(uri).get_run(run_id).info.status == "FINISHED"
    assert steps(uri, run_id) == [1, 2, 3]
    assert len(connect(uri).get_metric_history(run_id, "best/val/elbo")) == 1


def test_redelivery_by_a_fresh_process_doubles_nothing(uri: str, store: Store) -> None:
    journal = open_journal(store.root / "runs/a")
    write_epochs(journal, 1, 2, pictures=True)
    run_id = deliver(uri, store, journal, upto=1)
    for path in journal.records_folder.iterdir():
        path.touch()  # a retrained epoch: same content, another time
    shutil.rmtree(journal.folder / "delivered.json", ignore_errors=True)
    (journal.folder / "delivered.json").unlink()
    for _ in range(3):
        assert deliver(uri, store, journal) == run_id
    assert steps(uri, run_id) == steps(uri, run_id, "train/loss") == [1, 2]
    assert len(pictures(uri, run_id)) == 4
    assert len(list_runs(uri, store)) == 1


def test_another_store_gets_the_whole_run(store: Store, uri: str, mlflow_database: Path) -> None:
    journal = open_journal(store.root / "runs/a")
    write_epochs(journal, 1, 2)
    close(journal, 2)
    deliver(uri, store, journal)
    (store.root / "other").mkdir()
    shutil.copy(mlflow_database, store.root / "other/mlflow.db")
    other = tracking_uri(Store.at(store.root / "other"))
    pending = list(pending_journals(store, other, BACKEND))
    assert [journal.run_folder] == [found.run_folder for found in pending]
    assert not list(pending_journals(store, uri, BACKEND))
    assert steps(other, deliver(other, store, journal)) == [1, 2]
    assert not list(pending_journals(store, other, BACKEND))


def test_a_run_that_mlflow_lost_is_delivered_again(uri: str, store: Store) -> None:
    journal = open_journal(store.root / "runs/a")
    write_epochs(journal, 1)
    close(journal, 1)
    first = deliver(uri, store, journal)
    connect(uri).delete_run(first)
    second = deliver(uri, store, journal)
    assert second != first and steps(uri, second) == [1]


def test_a_deleted_experiment_is_restored(uri: str, store: Store) -> None:
    client = connect(uri)
    client.delete_experiment(client.create_experiment("vae-digits"))
    run_id = deliver(uri, store, open_journal(store.root / "runs/a"))
    assert client.get_run(run_id).info.lifecycle_stage == "active"


def test_artifacts_are_copied_and_a_missing_one_holds_up_nothing(uri: str, store: Store) -> None:
    journal = open_journal(store.root / "runs/a")
    (store.root / "trials.csv").write_text("a,b\n")
    write_noise(store.root / "folder")
    artifacts = {"search": "trials.csv", "more": "folder", "none": "gone"}
    close(journal, 0, artifacts={k: str(store.root / v) for k, v in artifacts.items()})
    run_id = deliver(uri, store, journal)
    client = connect(uri)
    found = {f.path for at in ("search", "more") for f in client.list_artifacts(run_id, at)}
    assert found == {"search/trials.csv", "more/model.json"}
    assert client.get_run(run_id).info.status == "FINISHED"


def test_a_picture_that_was_cut_short_is_completed(uri: str, store: Store) -> None:
    journal = open_journal(store.root / "runs/a")
    write_epochs(journal, 1, pictures=True)
    run_id = deliver(uri, store, journal, upto=0)
    client = connect(uri)
    client.log_image(run_id, Image.new("L", (8, 8)), key="samples", step=1)
    [folder] = store.root.glob("artifacts/**/images")
    [small] = folder.glob("*.webp")
    small.unlink()
    client.delete_tag(run_id, "mlflow.loggedImages")
    deliver(uri, store, journal)
    assert pictures(uri, run_id) == ["samples+step+1+_+compressed.webp", "samples+step+1+_.png"]
    assert client.get_run(run_id).data.tags["mlflow.loggedImages"] == "True"


def test_pictures_begin_at_step_0(uri: str, store: Store) -> None:
    """Whoever delivers, and however often: each picture once."""
    journal = open_journal(store.root / "runs/a")
    write_epochs(journal, 1)
    assert pictures(uri, deliver(uri, store, journal)) == []
    journal.write_start({"samples": PNG})
    write_epochs(journal, 2, 3, pictures=True)
    run_id = deliver(uri, store, journal, upto=2)
    deliver(uri, store, journal)
    steps = [f"samples+step+{step}+_.png" for step in (0, 2, 3)]
    assert [name for name in pictures(uri, run_id) if name.endswith(".png")] == steps


# -- answers that are lost ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "which"),
    [
        ("create_experiment", 1),
        ("create_run", 1),
        ("log_batch", 1),  # params
        ("log_inputs", 1),
        ("set_tag", 1),
        ("log_image", 1),
        ("log_batch", 2),  # epochs
        ("log_batch", 3),  # the end
        ("set_terminated", 1),
    ],
)
def test_a_lost_answer_doubles_nothing(
    uri: str, store: Store, monkeypatch: pytest.MonkeyPatch, method: str, which: int
) -> None:
    journal = open_journal(store.root / "runs/a")
    write_epochs(journal, 1, 2, pictures=True)
    close(journal, 2, summary={"best/val/elbo": -1.0})
    lose_answer(monkeypatch, method, which)
    assert deliver_until_done(writer(uri, store), journal) == 1

    [row] = list_runs(uri, store)
    assert steps(uri, row.run_id) == steps(uri, row.run_id, "system/epoch") == [1, 2]
    assert len(connect(uri).get_metric_history(row.run_id, "best/val/elbo")) == 1
    assert len(pictures(uri, row.run_id)) == 4
    assert row.tags["mlflow.loggedImages"] == "True"
    assert row.status == "FINISHED" and row.params == {"model.latent_dim": "16"}
    assert len(connect(uri).get_run(row.run_id).inputs.dataset_inputs) == 1


def test_what_is_searched_is_shown_and_the_rest_is_read_all_the_same(
    uri: str, store: Store
) -> None:
    params = {"model.latent_dim": 4, "optim.lr": 0.1, "data": "digits", "channels": "auto"}
    known = {"kind": "trial", "trial_id": "0a1b2c3d", "search_id": "s", "params": params}
    shown = {"label": "ld4 lr0.1", "shown": ["model.latent_dim", "optim.lr", "data"]}
    journal = open_journal(store.run("0a1b2c3d").path, **known, **shown)
    run_id = deliver(uri, store, journal)
    run = connect(uri).get_run(run_id)
    assert run.info.run_name == "ld4 lr0.1" and set(run.data.params) == set(shown["shown"])
    texts = {name: str(value) for name, value in params.items()}
    for reader in (MlflowReader(uri, store), BACKEND.reader(uri, store)):
        (row,) = reader.list_runs()
        assert (row.name, row.params) == ("0a1b2c3d", texts)
        for name in ("0a1b2c3d", "ld4 lr0.1", run_id):
            assert reader.run(name) == row


def test_only_an_epoch_that_diverged_says_so(uri: str, store: Store) -> None:
    journal = open_journal(store.run("a").path)
    write_epochs(journal, 1, diverged=0.0)
    write_epochs(journal, 2, diverged=1.0)
    assert steps(uri, deliver(uri, store, journal), "diverged") == [2]
