"""Recorded runs are listed and ranked; what an outage held back is delivered first."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from support.journals import open_journal
from support.tracking import BACKEND, SETTING, MemoryServer

import pipelines
from gen_models.core.errors import InputError
from pipelines.catalog.runs import best, browse, runs
from pipelines.report.results import BestResult
from pipelines.store.journal import Journal
from pipelines.store.layout import Store
from pipelines.store.lease import holding

URI = "memory://test"
Record = Callable[..., Journal]


@pytest.fixture
def server(memory_server: MemoryServer) -> MemoryServer:
    return memory_server


def names(store: Store, **settings: Any) -> list[str]:
    found = runs(store=store.root, tracking_uri=URI, **settings)
    return [run.name for run in found.runs]


def best_of(store: Store, family: str = "vae", **settings: Any) -> BestResult:
    return best(family, store=store.root, tracking_uri=URI, **settings)


def test_runs_are_listed_newest_first(server: MemoryServer, store: Store, record: Record) -> None:
    for second, name in enumerate("abc", 1):
        journal = record(name, 1.0, deliver=False)
        os.utime(journal.folder / "identity.json", (second, second))
    assert names(store) == ["c", "b", "a"]
    assert names(store, num=2) == ["c", "b"]
    assert SETTING not in os.environ


def test_a_listed_run_holds_what_is_recorded(
    server: MemoryServer, store: Store, record: Record
) -> None:
    record("a", 2.5, summary={"best/epoch": 1.0, "wall_seconds": 9.0})
    (row,) = runs(store=str(store.root), tracking_uri=URI).runs
    assert (row.run_id, row.name) == (server.run("a").row.run_id, "a")
    assert (row.experiment, row.kind, row.epoch) == ("vae-digits", "run", 1)
    assert (row.status, row.outcome) == ("FINISHED", "completed")
    assert (row.metric, row.value) == ("val/nll/iw8", 2.5)
    assert row.metrics == {"best/val/nll/iw8": 2.5, "best/epoch": 1.0}
    assert row.params == {"data": "digits", "model.latent_dim": "16"}
    assert row.rerun == "genpipe a" and row.started.startswith("20")


def test_a_run_that_goes_on_has_its_status_for_an_outcome(
    server: MemoryServer, store: Store, record: Record
) -> None:
    journal = open_journal(store.run("a").path)
    record("b")
    BACKEND.writer(URI, store).deliver(journal)
    with holding(store.run("a"), "name"):
        found = runs(store=store.root, tracking_uri=URI).runs
    assert {run.name: run.outcome for run in found} == {"a": "running", "b": "completed"}


def test_runs_of_one_experiment(server: MemoryServer, store: Store, record: Record) -> None:
    record("a", data="digits")
    record("b", data="mnist")
    assert names(store, experiment="vae-mnist") == ["b"]
    with pytest.raises(InputError, match="experiment = 'gan-mnist': expected one of vae-digits"):
        names(store, experiment="gan-mnist")


def test_runs_of_a_kind_or_a_family(server: MemoryServer, store: Store, record: Record) -> None:
    record("a", 1.0)
    record("b", 1.0, kind="search", search_id="b")
    record("c", 1.0, family="gan", kind="search", search_id="c")
    assert set(names(store, kind="search")) == {"b", "c"} and names(store, kind="run") == ["a"]
    assert names(store, kind="search", family="gan") == ["c"]
    assert names(store, kind="trial") == names(store, family="autoencoder") == []
    with pytest.raises(InputError, match=r"unknown family 'gam' \(did you mean 'gan'"):
        names(store, family="gam")
    with pytest.raises(InputError, match="kind = 'trail': expected one of run, search"):
        names(store, kind="trail")


def test_runs_of_which_a_condition_is_true(
    server: MemoryServer, store: Store, record: Record
) -> None:
    for number, name in enumerate("abcd"):
        summary = {"best/val/fd/lenet-digits/2k": 100.0 * number}
        params = {"optim.lr": 10.0**-number, "model.hidden": "[8, 8]"}
        record(name, float(number), params=params, summary=summary)
    record("e")  # without a value
    for condition, expected in {
        "metric < 2": "ab",
        "metric < 2 and model.latent_dim == 16": "ab",
        "optim.lr <= 0.01": "cd",
        "val/fd > 150 or name == 'a'": "acd",
        "val/fd/lenet-digits/2k/100 == 1": "",
        "metric / 2 >= 1 and model.hidden == [8, 8]": "cd",
        "data == 'val/fd' or name in ['b', \"val/x\"]": "b",
        "kind == 'run' and epoch == 1": "abcde",
        "outcome != 'completed'": "",
    }.items():
        if "2k/100" in condition:
            with pytest.raises(InputError, match="no run has val/fd/lenet-digits/2k/100: expec"):
                names(store, where=condition)
        else:
            assert sorted(names(store, where=condition)) == sorted(expected), condition
    assert len(names(store, where="metric >= 0", num=2)) == 2


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("metrik < 2", r"no run has metrik \(did you mean 'metric'\?\): expected metric, epoch"),
        ("model.latent_din < 2", r"no run has model.latent_din \(did you mean 'model.latent_dim'"),
        ("metric <", "where = 'metric <': cannot be parsed"),
        ("metric.real() < 2", "is not understood: expected comparisons"),
        ("name < 2", "where = name < 2: not a condition on"),
    ],
)
def test_a_wrong_condition_is_refused(
    condition: str, message: str, server: MemoryServer, store: Store, record: Record
) -> None:
    record("a", 1.0)
    with pytest.raises(InputError, match=message):
        names(store, where=condition)


def test_what_an_outage_held_back_is_delivered_first(
    server: MemoryServer, store: Store, record: Record
) -> None:
    record("a")
    run_id = server.run("a").row.run_id
    record("held back", deliver=False)
    store.evaluation(run_id).write(run_id, {"test/fd": 2.0}, {}, {})
    open_journal(store.run("going on").path)
    with holding(store.run("going on"), "name"):
        assert sorted(names(store)) == ["a", "held back"]
        assert server.run("a").row.metrics["test/fd"] == 2.0
        server.requests.clear()
        names(store)
    assert server.requests == [("", None)]  # to list them, and nothing is delivered again


def test_results_that_are_not_delivered_are_said(
    server: MemoryServer, store: Store, record: Record, caplog: pytest.LogCaptureFixture
) -> None:
    record("a")
    record("b", deliver=False)
    server.refused.add("b")
    assert names(store) == ["a"]
    assert "1 results of this store are not in memory at memory://test" in caplog.text


def test_wrong_settings_are_refused(server: MemoryServer, store: Store) -> None:
    for call in (lambda: names(store, num=0), lambda: best_of(store, num=0)):
        with pytest.raises(InputError, match="num = 0: expected an integer of at least 1"):
            call()
    with pytest.raises(InputError, match=r"store = .*: expected a folder in which runs are"):
        runs(store=store.root)
    for port in (0, 65536):
        with pytest.raises(InputError, match=f"port = {port}: expected a number from 1 to 65535"):
            browse(store=store.root, tracking_uri=URI, port=port)


def test_before_the_page_is_served_what_was_held_back_is_delivered(
    server: MemoryServer, store: Store, record: Record
) -> None:
    record("a", deliver=False)
    with pytest.raises(InputError, match="a tracker in memory has no page"):
        browse(store=store.root, tracking_uri=URI)
    assert server.run("a").row.status == "FINISHED"


def test_the_public_interface_gives_the_same_functions() -> None:
    assert pipelines.runs is runs and pipelines.best is best


# -- the best ------------------------------------------------------------------------------------
def test_runs_are_ranked_by_their_best_value(
    server: MemoryServer, store: Store, record: Record
) -> None:
    for name, value in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
        record(name, value)
    record("without a value")
    record("another family", 0.0, family="gan")
    record("a search", 0.5, kind="search", search_id="s")
    found = best_of(store)
    assert [(run.name, run.value) for run in found.ranking] == [("b", 1.0), ("c", 2.0), ("a", 3.0)]
    assert (found.metric, found.mode, found.data) == ("val/nll/iw8", "min", "digits")
    assert found.rerun == "genpipe b"
    assert [run.name for run in best_of(store, num=1).ranking] == ["b"]


def test_a_metric_that_is_good_when_large(
    server: MemoryServer, store: Store, record: Record
) -> None:
    for name, value in (("a", -3.0), ("b", -1.0)):
        record(name, value, metric="val/elbo", mode="max")
    found = best_of(store, metric="val/elbo")
    assert [run.name for run in found.ranking] == ["b", "a"] and found.mode == "max"


def test_the_direction_is_that_which_was_recorded(
    server: MemoryServer, store: Store, record: Record
) -> None:
    for name, value in (("a", -3.0), ("b", -1.0)):
        record(name, value, metric="val/kl", mode="max")  # whose name tells no direction
    assert [run.name for run in best_of(store, metric="val/kl").ranking] == ["b", "a"]


def test_only_runs_on_one_data_set_are_compared(
    server: MemoryServer, store: Store, record: Record
) -> None:
    for second, (name, data) in enumerate([("old", "mnist"), ("new", "digits")], 1):
        journal = record(name, 1.0, data=data, deliver=False)
        os.utime(journal.folder / "identity.json", (second, second))
    newest = best_of(store)
    assert [run.name for run in newest.ranking] == ["new"] and newest.data == "digits"
    assert [run.name for run in best_of(store, data="mnist").ranking] == ["old"]
    with pytest.raises(InputError) as caught:
        best_of(store, data="svhn")
    assert str(caught.value) == (f"no run of vae on svhn with val/nll is recorded in {store.root}")
    with pytest.raises(InputError, match="no run of vae with val/fd is recorded in"):
        best_of(store, metric="val/fd")


OTHERS: dict[str, dict[str, Any]] = {
    "likelihood": {"params": {"model.likelihood": "gaussian"}},
    "conditional": {"params": {"model.conditional": True}},
    "binary": {"params": {"binarise": True}},
    "digest": {"digest": "of another image size, or of other images"},
}


@pytest.mark.parametrize("other", OTHERS)
def test_only_runs_of_one_key_are_ranked_together(
    other: str, server: MemoryServer, store: Store, record: Record
) -> None:
    known = [("a", 3.0, OTHERS[other]), ("b", 1.0, {}), ("c", 2.0, {})]
    for second, (name, value, settings) in enumerate(known, 1):
        journal = record(name, value, deliver=False, **settings)
        os.utime(journal.folder / "identity.json", (second, second))
    newest = best_of(store)
    assert [run.name for run in newest.ranking] == ["b", "c"]
    assert newest.comparable == newest.ranking[0].comparable and "val/nll" in newest.comparable
    listed = {run.name: run.key for run in runs(store=store.root, tracking_uri=URI).runs}
    assert listed["b"] == listed["c"] == newest.key != listed["a"]
    assert newest.left_out == {listed["a"]: 1}
    asked = best_of(store, key=listed["a"])
    assert [run.name for run in asked.ranking] == ["a"] and asked.left_out == {newest.key: 2}
    with pytest.raises(InputError, match="no run of vae of key 12345678 with val/nll is"):
        best_of(store, key="12345678")


def test_a_config_with_a_seed_study_is_ranked_by_its_mean_and_its_seeds_are_not(
    server: MemoryServer, store: Store, record: Record
) -> None:
    search, study = store.search("s"), store.search("s-t0-2-seeds")
    trial = {"kind": "trial", "search_id": "s"}
    record("t0", 1.0, folder=search.trial("t0"), summary={"confirm/mean": 2.5}, **trial)
    record("t1", 2.0, folder=search.trial("t1"), **trial)
    record("study", folder=study, kind="confirmation", search_id="s-t0-2-seeds")
    seed = {"kind": "trial", "search_id": "s-t0-2-seeds"}
    record("seed-1", 0.5, folder=study.trial("seed-1"), **seed)
    found = best_of(store)
    assert [(run.name, run.value) for run in found.ranking] == [("t1", 2.0), ("t0", 2.5)]


def test_the_mean_is_of_the_metric_that_the_study_was_ranked_by(
    server: MemoryServer, store: Store, record: Record
) -> None:
    record("a", 1.0, summary={"confirm/mean": 9.0, "best/val/fd/lenet-digits/2k": 5.0})
    found = best_of(store, metric="val/fd")
    assert found.metric == "val/fd/lenet-digits/2k" and found.ranking[0].value == 5.0


def test_runs_of_other_programs_with_our_tags_are_listed_and_not_ranked(
    server: MemoryServer, store: Store, record: Record
) -> None:
    record("a", 2.5)
    for name, tags in {"b": {"best_settings": "[" * 9999}, "c": {"best_settings": "'"}}.items():
        other = record(name, 1.0, deliver=False)
        BACKEND.writer(URI, store).deliver(other)
        run = server.run(name)
        run.row = replace(run.row, params={}, tags={**run.row.tags, **tags, "mode": "up"})
    assert sorted(names(store)) == ["a", "b", "c"]
    assert [run.name for run in best_of(store).ranking] == ["a"]
