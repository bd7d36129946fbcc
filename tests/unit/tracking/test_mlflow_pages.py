"""What a person finds on MLflow's pages: saved views and descriptions."""

import json
import shutil
import zlib
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from support.journals import METRIC, open_journal, write_epochs
from support.mlflow_runs import close, deliver

from pipelines.evaluation.metric_names import BEST_CURVE
from pipelines.store.journal import Journal, Labels
from pipelines.store.layout import Store
from pipelines.tracking.mlflow import BACKEND
from pipelines.tracking.mlflow.connection import connect
from pipelines.tracking.mlflow.reader import links_of
from pipelines.tracking.mlflow.writer import MlflowWriter
from pipelines.tracking.queue import pending_journals

OBJECTIVES = "val/elbo (max), val/fd (min)"
TABLE = f"""\
trial_id,outcome,epochs,best_epoch,{METRIC}
t2,completed,2,2,-2.0
t1,stopped_early,1,1,-3.0
"""


def deliver_search(
    uri: str, store: Store, name: str = "s1", searched: str = "lr", note: str = "", **tags: str
) -> str:
    """Deliver a search of two trials that has ended; return its run's id."""
    folder = store.search(name)
    known = {"family": "vae", "metric": METRIC, "mode": "max", **tags}
    of_search: dict[str, Any] = {"kind": "search", "search_id": name, "tags": known}
    params = {"searched": searched, "space.lr": "loguniform(0.1, 1)"}
    search = open_journal(folder.path, params=params, **of_search)
    search.label(Labels(note=note))
    deliver(uri, store, search)
    of_search |= {"kind": "trial", "parent": "../.."}
    for trial_id in ("t1", "t2"):
        path = folder.trial(trial_id).path
        label = {"label": f"lr{trial_id}"}
        trial = open_journal(path, trial_id=trial_id, **of_search, **label)
        write_epochs(trial, 1)
        close(trial, 1)
        deliver(uri, store, trial)
    folder.table.write_text(TABLE)
    close(search, 0)
    return deliver(uri, store, search)


def views(client: MlflowClient, experiment_id: str) -> dict[str, dict[str, Any]]:
    """Return the states of an experiment's views, as MLflow's pages read them, by name."""
    found = {}
    for tag, value in client.get_experiment(experiment_id).tags.items():
        if tag.startswith("mlflow.sharedViewState."):
            content = json.loads(value)
            packed = content["state"].removeprefix("deflate;")
            state = json.loads(zlib.decompress(b64decode(packed)))
            found[content["name"]] = {**state, "key": tag.rpartition(".")[2]}
    return found


def experiment_of(client: MlflowClient, run_id: str) -> str:
    return str(client.get_run(run_id).info.experiment_id)


def test_a_search_adds_views_with_its_settings_as_columns(uri: str, store: Store) -> None:
    run_id = deliver_search(uri, store, searched="optim.lr seed")
    client = connect(uri)
    experiment_id = experiment_of(client, run_id)
    found = views(client, experiment_id)
    assert set(found) == {f"Trials by best {METRIC}", "Searches", "s1"}
    trials = found[f"Trials by best {METRIC}"]
    assert trials["key"] == "trials"
    assert trials["orderByKey"] == f"metrics.`best/{METRIC}`" and not trials["orderByAsc"]
    assert {"params.`optim.lr`", "params.`seed`"} <= set(trials["selectedColumns"])
    live = {f"metrics.`{name}`" for name in (BEST_CURVE, "trials/ended", "trials/running")}
    assert live <= set(found["Searches"]["selectedColumns"])
    names = {
        name: {
            run.info.run_name for run in client.search_runs([experiment_id], view["searchFilter"])
        }
        for name, view in found.items()
    }
    both = {"lrt1", "lrt2"}
    assert names == {f"Trials by best {METRIC}": both, "Searches": {"s1"}, "s1": both}


def test_the_views_of_several_metrics(uri: str, store: Store) -> None:
    run_id = deliver_search(uri, store, objectives=OBJECTIVES)
    found = views(connect(uri), experiment_of(connect(uri), run_id))["Pareto front"]
    assert {"metrics.`best/val/elbo`", "metrics.`best/val/fd`"} <= set(found["selectedColumns"])
    assert found["searchFilter"] == "tags.pareto_front = 'true'"


def test_the_latest_search_decides_the_columns_also_if_all_is_recorded_anew(
    uri: str, store: Store, tmp_path: Path, mlflow_database: Path
) -> None:
    def columns(at: str) -> list[str]:
        (experiment,) = [e for e in connect(at).search_experiments() if e.name == "vae-digits"]
        view = views(connect(at), experiment.experiment_id)[f"Trials by best {METRIC}"]
        return [name for name in view["selectedColumns"] if name.startswith("params")]

    deliver_search(uri, store, "s1", "optim.lr")
    deliver_search(uri, store, "s2", "seed")
    assert columns(uri) == ["params.`seed`"]
    shutil.copy(mlflow_database, tmp_path / "other.db")
    other = f"sqlite:///{tmp_path}/other.db"
    for name in ("s2", "s1"):
        MlflowWriter(other, store).deliver(store.search(name).journal, anew=True)
    assert columns(other) == ["params.`seed`"]


def test_a_description_has_the_best_trials_and_the_space(uri: str, store: Store) -> None:
    run_id = deliver_search(uri, store, note="**pilot**")
    client = connect(uri)
    text = client.get_run(run_id).data.tags["mlflow.note.content"]
    assert text.startswith("**pilot**") and "| lr | `loguniform(0.1, 1)` |" in text
    best = store.search("s1").trial("t2").journal.delivered()["run_id"]
    assert f"| 1 | [lrt2](#/experiments/{experiment_of(client, run_id)}/runs/{best}?" in text
    assert text.index("lrt2") < text.index("lrt1")
    described = client.get_experiment(experiment_of(client, run_id)).tags["mlflow.note.content"]
    assert "viewStateShareKey=trials" in described and "viewStateShareKey=searches" in described


def test_a_description_that_an_outage_held_back_names_the_trials(
    uri: str, store: Store, tmp_path: Path, mlflow_database: Path
) -> None:
    deliver_search(uri, store)
    other = f"sqlite:///{shutil.copy(mlflow_database, tmp_path / 'other.db')}"
    for journal in pending_journals(store, other, BACKEND):
        assert isinstance(journal, Journal)
        deliver(other, store, journal)
    run_id = store.search("s1").journal.delivered(other)["run_id"]
    text = connect(other).get_run(run_id).data.tags["mlflow.note.content"]
    assert "| 1 | [lrt2](#/experiments/" in text


def test_a_description_that_somebody_has_edited_stays(uri: str, store: Store) -> None:
    run_id = deliver_search(uri, store)
    client, tag = connect(uri), "mlflow.note.content"
    client.set_tag(run_id, tag, "mine")
    client.set_experiment_tag(experiment_of(client, run_id), tag, "ours")
    MlflowWriter(uri, store).deliver(store.search("s1").journal, anew=True)
    assert client.get_run(run_id).data.tags[tag] == "mine"
    assert client.get_experiment(experiment_of(client, run_id)).tags[tag] == "ours"


def test_the_addresses_of_experiments(
    uri: str, store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(uri)
    client.create_run(client.create_experiment("other"))
    assert links_of(uri).keys() == {"other"}
    deliver_search(uri, store)
    for links in (links_of(uri), BACKEND._links(uri)):
        assert links.keys() == {"other", "vae-digits"}
        assert links["vae-digits"].endswith("machine_learning&viewStateShareKey=trials")
        assert links["other"].endswith("runs?workflowType=machine_learning")
    monkeypatch.setattr("os.execve", lambda *arguments: None)
    monkeypatch.setattr("pipelines.tracking.mlflow.server._require_free", lambda port: None)
    BACKEND.serve(uri, store, 5017)
    assert f"vae-digits: http://127.0.0.1:5017/{links['vae-digits']}" in capsys.readouterr().out
