"""Runs, configs and checkpoints are read back from MLflow."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.journals import open_journal, write_epochs
from support.mlflow_runs import close, deliver, deliver_claim, list_runs, load_noise, write_noise

from gen_models.core.errors import InputError
from pipelines.config.run import Run, Train, as_train, defaults
from pipelines.config.search import Search
from pipelines.config.serialization import dump_config, result_settings
from pipelines.store.layout import Store
from pipelines.tracking.base import tracking_uri
from pipelines.tracking.mlflow import BACKEND
from pipelines.tracking.mlflow.connection import connect
from pipelines.tracking.mlflow.reader import MlflowReader


def test_runs_are_listed_by_experiment_and_tag(uri: str, store: Store) -> None:
    for name, experiment, kind in [("a", "x", "run"), ("b", "x", "search"), ("c", "y", "run")]:
        journal = open_journal(store.root / "runs" / name, experiment=experiment, kind=kind)
        write_epochs(journal, 1)
        close(journal, 1)
        deliver(uri, store, journal)
    assert {row.name for row in list_runs(uri, store)} == {"a", "b", "c"}
    assert {row.name for row in list_runs(uri, store, "x")} == {"a", "b"}
    [row] = list_runs(uri, store, "x", {"kind": "search"})
    assert (row.name, row.experiment, row.kind, row.epoch) == ("b", "x", "search", 0)
    assert (row.status, row.outcome) == ("FINISHED", "completed")
    assert row.metrics["val/elbo"] == -1 and row.params["model.latent_dim"] == "16"
    assert round(row.start_time.timestamp() * 1000) == store.run("b").journal.started_ms()
    with pytest.raises(InputError, match=r"'z': expected one of .*x, y"):
        list_runs(uri, store, "z")


def test_more_runs_than_a_page(uri: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.tracking.mlflow.reader._PAGE", 2)
    client = connect(uri)
    experiment = client.create_experiment("x")
    ids = {client.create_run(experiment).info.run_id for _ in range(5)}
    rows = list_runs(uri, store)
    assert len(rows) == 5 and {row.run_id for row in rows} == ids


def test_a_checkpoint_is_found_by_every_name(uri: str, store: Store, tmp_path: Path) -> None:
    deliver_claim(uri, store, "a", 1.0)
    deliver_claim(uri, store, "b", 2.0)
    run_id = store.run("b").journal.delivered()["run_id"]
    reader = MlflowReader(uri, store)
    best = store.root / "runs/b/best"
    into = tmp_path / "fetched"

    def same(*models: str) -> set[Path]:
        return {reader.checkpoint(model, into) for model in models}

    registered = ["models:/vae-digits/2", "models:/vae-digits@champion", "vae-digits@champion"]
    assert same(str(best), run_id, "b", *registered) == {best}
    shutil.rmtree(best)
    [fetched] = same(run_id, "b", *registered)
    assert fetched.is_relative_to(into) and load_noise(fetched)[1] == 3
    write_noise(best, scale=77)  # another checkpoint where that of the version was
    assert same("vae-digits@champion") == {fetched}


@pytest.fixture(scope="module")
def reader(
    mlflow_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MlflowReader]:
    """Reads a database of a registered model without versions and of three runs without a
    checkpoint, two of which have the same name."""
    store = Store.at(tmp_path_factory.mktemp("store"))
    shutil.copy(mlflow_database, store.database)
    with BACKEND.settings():
        uri = tracking_uri(store)
        client = connect(uri)
        client.create_registered_model("vae-digits")
        for name in ("bare", "twice", "twice"):
            client.create_run("0", run_name=name)
        yield MlflowReader(uri, store)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nothing", "'nothing'.*registered at .*: models:/vae-digits$"),
        ("0" * 32, "expected a checkpoint folder, a run's id or name, or a registered model"),
        ("models:/vae-digits/9", "models:/vae-digits$"),
        ("models:/none/1", "models:/vae-digits$"),
        ("vae-digits@best", "models:/vae-digits$"),
        ("bare", "run bare .* has no checkpoint"),
        ("twice", "expected one run; give an id of [0-9a-f]{32}, [0-9a-f]{32}"),
        ("o'clock", "expected a checkpoint folder"),
    ],
)
def test_a_model_that_is_not_there(reader: MlflowReader, model: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        reader.checkpoint(model, Path("/nowhere"))


def test_a_run_is_found_by_the_names_of_a_model(uri: str, store: Store) -> None:
    deliver_claim(uri, store, "a", 1.0)
    deliver_claim(uri, store, "b", 2.0)
    reader = MlflowReader(uri, store)
    row = reader.run("b")
    assert row.name == "b" and row.metrics["val/elbo"] == -1.0
    names = (row.run_id, "models:/vae-digits/2", "models:/vae-digits@champion")
    assert all(reader.run(name) == row for name in (*names, "vae-digits@champion"))
    assert reader.run("models:/vae-digits/1").name == "a"
    with pytest.raises(InputError, match=r"run = 'c': expected a run's id or name, or a reg"):
        reader.run("c")


def test_a_checkpoint_that_is_no_longer_kept(uri: str, store: Store) -> None:
    journal = open_journal(store.run("a").path)
    best = store.run("a").path / "best"
    for scale in (1, 2):  # the second one takes the place of the first, here and in MLflow
        write_noise(best, scale)
        close(journal, scale, checkpoint=str(best), register="vae-digits")
        deliver(uri, store, journal)
    shutil.rmtree(best)
    reader = MlflowReader(uri, store)
    with pytest.raises(InputError, match="was resumed since, and the checkpoint that is meant"):
        reader.checkpoint("models:/vae-digits/1", store.root / "one")
    fetched = reader.checkpoint("models:/vae-digits/2", store.root / "two")
    assert json.loads((fetched / "model.json").read_text()) == {"scale": 2}


# -- configs -------------------------------------------------------------------------------------
def small(kind: type[Run]) -> Run:
    run = defaults(kind, "vae")
    model = replace(run.model, latent_dim=3, hidden=(5, 4))
    return replace(run, model=model, batch_size=7, image_size=None, drop_last=False)


@pytest.mark.parametrize("kind", [Train, Search])
def test_a_config_is_an_artifact_and_is_read_from_it(
    kind: type[Run], uri: str, store: Store
) -> None:
    run, folder = small(kind), store.run("a")
    store.files.write(folder.config, dump_config(run))
    tags = {"family": "vae", "rerun": "a command that is never parsed"}
    journal = open_journal(folder.path, params={"model.latent_dim": 99}, tags=tags)
    run_id = deliver(uri, store, journal)
    path = connect(uri).download_artifacts(run_id, "config.json", str(store.root))
    assert json.loads(Path(path).read_text())["config"]["model"]["hidden"] == [5, 4]
    folder.config.unlink()  # MLflow's is read, as on another machine
    reader = MlflowReader(uri, store)
    assert reader.config(reader.run("a")) == run


@pytest.mark.parametrize("kind", [Train, Search])
def test_a_run_without_it_has_the_config_of_its_params(
    kind: type[Run], uri: str, store: Store
) -> None:
    run = small(kind)
    params = {name: str(value) for name, value in result_settings(run).items()}
    deliver(uri, store, open_journal(store.run("a").path, params=params))
    reader = MlflowReader(uri, store)
    assert reader.config(reader.run("a")) == as_train(run)


def test_a_damaged_config_is_named_with_its_run(uri: str, store: Store) -> None:
    folder = store.run("a")
    store.files.write(folder.config, "{")
    deliver(uri, store, open_journal(folder.path))
    reader = MlflowReader(uri, store)
    with pytest.raises(InputError, match=r"^config\.json of run a: damaged"):
        reader.config(reader.run("a"))
