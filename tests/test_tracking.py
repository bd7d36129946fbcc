"""Tracking: MLflow holds what the journal says, once, whatever happened on the way."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
from PIL import Image
from torch import nn

import gen_models
from gen_models.core import Learner
from gen_models.core.checkpoint import load_sampler, save_checkpoint
from gen_models.core.data import DataSpec
from gen_models.core.errors import InputError
from pipelines.store.journal import Ending, Identity, Journal, Outcome
from pipelines.tracking import (
    Tracker,
    browse,
    lineage,
    list_runs,
    resolve_checkpoint,
    tracking_uri,
    undelivered,
)
from pipelines.tracking.mlflow.connection import connect, make_tables, without_password

DIGEST = "0123456789abcdef"
PNG = io.BytesIO()
Image.new("L", (8, 8), 128).save(PNG, "PNG")


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of MLflow's; to make one takes seconds, to copy it nothing."""
    store = tmp_path_factory.mktemp("template")
    make_tables(tracking_uri(store))
    return store / "mlflow.db"


@pytest.fixture
def store(tmp_path: Path, database: Path) -> Path:
    shutil.copy(database, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def uri(store: Path) -> str:
    return tracking_uri(store)


class Noise(nn.Module):
    """A sampler: noise (N, 3) -> images (N, 1, 4, 4) in [0, 1]."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 16)
        nn.init.constant_(self.linear.weight, scale)
        nn.init.zeros_(self.linear.bias)

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.linear(noise)).reshape(-1, 1, 4, 4)


def load_noise(folder: Path) -> tuple[nn.Module, int]:
    return Noise(json.loads((folder / "model.json").read_text())["scale"]).eval(), 3


def write_noise(folder: Path, scale: float = 1.0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text(json.dumps({"scale": scale}))
    return folder


def opened(folder: Path, **identity: Any) -> Journal:
    known = {
        "name": folder.name,
        "experiment": "vae-digits",
        "kind": "run",
        "params": {"model.latent_dim": 16},
        "tags": {"seed": "0", "family": "vae"},
        "dataset": {"name": "digits", "digest": DIGEST, "shape": [1, 8, 8], "num_train": 9},
    }
    journal = Journal(folder)
    journal.open(Identity(**{**known, **identity}))
    return journal


def report(journal: Journal, *epochs: int, pictures: bool = False, **metrics: float) -> None:
    for epoch in epochs:
        values = {"train/loss": 1 / epoch, "val/elbo": -float(epoch), **metrics}
        journal.report(epoch, values, {"samples": PNG.getvalue()} if pictures else {})


def close(journal: Journal, last: int, ending: Ending = "completed", **outcome: Any) -> None:
    journal.close(Outcome(ending, last, **outcome))


def deliver(uri: str, store: Path, journal: Journal, upto: int | None = None) -> str:
    """Deliver as a fresh process would; the run's id."""
    tracker = Tracker(uri, store, load_noise)
    tracker.deliver(journal, upto)
    run_id = tracker.run_id(journal)
    assert run_id
    return run_id


def steps(uri: str, run_id: str, key: str = "val/elbo") -> list[int]:
    history = connect(uri).get_metric_history(run_id, key)
    assert all(point.value == -point.step for point in history) or key != "val/elbo"
    return [point.step for point in sorted(history, key=lambda p: p.timestamp)]


def pictures(uri: str, run_id: str) -> list[str]:
    """The names under images/, without what is random in them."""
    files = [Path(file.path).name for file in connect(uri).list_artifacts(run_id, "images")]
    return sorted(re.sub(r"timestamp\+\d+\+[-0-9a-f]{36}", "_", name) for name in files)


# -- runs -------------------------------------------------------------------------------------
def test_a_run_arrives_whole(uri: str, store: Path) -> None:
    params = {f"p{i:03}": i for i in range(250)} | {"long": "x" * 7000}
    journal = opened(store / "runs/a", params=params)
    report(journal, 1, 2, 3, pictures=True)
    close(journal, 3, summary={"best/val/elbo": -1.0}, tags={"best_epoch": "1"})
    run = connect(uri).get_run(deliver(uri, store, journal))

    assert run.info.run_name == "a" and run.info.status == "FINISHED"
    assert len(run.data.params) == 251 and len(run.data.params["long"]) == 6000
    assert run.data.tags["seed"] == "0" and run.data.tags["outcome"] == "completed"
    assert run.data.tags["best_epoch"] == "1"
    assert run.data.metrics["epoch"] == 3 and run.data.metrics["best/val/elbo"] == -1
    assert steps(uri, run.info.run_id) == steps(uri, run.info.run_id, "epoch") == [1, 2, 3]
    [dataset] = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("digits", DIGEST)
    assert {tag.key: tag.value for tag in dataset.tags} == {"mlflow.data.context": "training"}
    assert str(store / "artifacts") in run.info.artifact_uri


def test_points_carry_the_time_of_their_report(uri: str, store: Path) -> None:
    journal = opened(store / "runs/a")
    report(journal, 1)
    os.utime(journal.reports_folder / "000001.json", (1_000_000, 1_000_000))
    run_id = deliver(uri, store, journal)
    assert connect(uri).get_metric_history(run_id, "epoch")[0].timestamp == 1_000_000_000


def test_pictures_make_a_grid_with_a_step_slider(uri: str, store: Path) -> None:
    journal = opened(store / "runs/a")
    report(journal, 1, 2, pictures=True)
    run_id = deliver(uri, store, journal)
    names = [f"samples+step+{e}+_{end}" for e in (1, 2) for end in ("+compressed.webp", ".png")]
    assert pictures(uri, run_id) == names
    assert connect(uri).get_run(run_id).data.tags["mlflow.loggedImages"] == "True"


def test_nonfinite_metrics_are_left_out(uri: str, store: Path) -> None:
    journal = opened(store / "runs/a")
    report(journal, 1, nan=float("nan"), inf=float("inf"))
    close(journal, 1, summary={"best": float("-inf")})
    metrics = connect(uri).get_run(deliver(uri, store, journal)).data.metrics
    assert set(metrics) == {"train/loss", "val/elbo", "epoch"}


def test_many_metrics_are_split_into_batches(uri: str, store: Path) -> None:
    journal = opened(store / "runs/a")
    report(journal, 1, 2, **{f"m{i}": float(i) for i in range(1500)})
    report(journal, *range(3, 600))
    run_id = deliver(uri, store, journal)
    assert len(connect(uri).get_run(run_id).data.metrics) == 1503
    assert sorted(steps(uri, run_id)) == list(range(1, 600))


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("completed", "FINISHED"),
        ("stopped_early", "KILLED"),
        ("interrupted", "KILLED"),
        ("diverged", "FAILED"),
        ("failed", "FAILED"),
    ],
)
def test_every_ending_has_a_status(uri: str, store: Path, ending: Ending, status: str) -> None:
    journal = opened(store / "runs/a")
    report(journal, 1)
    close(journal, 1, ending)
    run = connect(uri).get_run(deliver(uri, store, journal))
    assert (run.info.status, run.data.tags["outcome"]) == (status, ending)


def test_reports_beyond_the_end_are_not_delivered(uri: str, store: Path) -> None:
    journal = opened(store / "runs/a")
    report(journal, 1, 2, 3, 4)
    deliver(uri, store, journal, upto=1)
    close(journal, 3, "stopped_early")
    run_id = deliver(uri, store, journal, upto=4)
    assert steps(uri, run_id) == [1, 2, 3]


def test_a_trial_is_a_child_of_its_search(uri: str, store: Path) -> None:
    search = opened(store / "searches/s", kind="search", search_id="s")
    trial = opened(
        store / "searches/s/trials/1", kind="trial", search_id="s", trial_id="1", parent="../.."
    )
    report(trial, 1)
    child = connect(uri).get_run(deliver(uri, store, trial))
    parent = deliver(uri, store, search)
    assert child.data.tags["mlflow.parentRunId"] == parent
    assert (child.data.tags["search_id"], child.data.tags["trial_id"]) == ("s", "1")
    assert len(list_runs(uri)) == 2


def test_a_resumed_run_is_running_again(uri: str, store: Path) -> None:
    journal = opened(store / "runs/a")
    report(journal, 1, 2)
    close(journal, 2, "interrupted", summary={"best/val/elbo": -1.0})
    tracker = Tracker(uri, store)
    tracker.deliver(journal)

    opened(store / "runs/a")
    tracker.deliver(journal)
    run_id = tracker.run_id(journal)
    assert run_id
    run = connect(uri).get_run(run_id)
    assert (run.info.status, run.data.tags["outcome"]) == ("RUNNING", "")

    report(journal, 2, 3)  # epoch 2 anew: its file is written again
    close(journal, 3, summary={"best/val/elbo": -1.0})
    assert deliver(uri, store, journal) == run_id
    assert connect(uri).get_run(run_id).info.status == "FINISHED"
    assert steps(uri, run_id) == [1, 2, 3]
    assert len(connect(uri).get_metric_history(run_id, "best/val/elbo")) == 1


def test_redelivery_by_a_fresh_process_doubles_nothing(uri: str, store: Path) -> None:
    journal = opened(store / "runs/a")
    report(journal, 1, 2, pictures=True)
    run_id = deliver(uri, store, journal, upto=1)
    for path in journal.reports_folder.iterdir():
        path.touch()  # a retrained epoch: same content, another time
    shutil.rmtree(journal.folder / "delivered.json", ignore_errors=True)
    (journal.folder / "delivered.json").unlink()
    for _ in range(3):
        assert deliver(uri, store, journal) == run_id
    assert steps(uri, run_id) == steps(uri, run_id, "train/loss") == [1, 2]
    assert len(pictures(uri, run_id)) == 4
    assert len(list_runs(uri)) == 1


def test_another_store_gets_the_whole_run(store: Path, uri: str, database: Path) -> None:
    journal = opened(store / "runs/a")
    report(journal, 1, 2)
    close(journal, 2)
    deliver(uri, store, journal)
    (store / "other").mkdir()
    shutil.copy(database, store / "other/mlflow.db")
    other = tracking_uri(store / "other")
    assert Tracker(other).run_id(journal) is None
    assert [journal.run_folder] == [found.run_folder for found in undelivered(store, other)]
    assert steps(other, deliver(other, store, journal)) == [1, 2]
    assert not list(undelivered(store, other))


def test_a_run_that_mlflow_lost_is_delivered_again(uri: str, store: Path) -> None:
    journal = opened(store / "runs/a")
    report(journal, 1)
    close(journal, 1)
    first = deliver(uri, store, journal)
    connect(uri).delete_run(first)
    second = deliver(uri, store, journal)
    assert second != first and steps(uri, second) == [1]


def test_a_deleted_experiment_is_restored(uri: str, store: Path) -> None:
    client = connect(uri)
    client.delete_experiment(client.create_experiment("vae-digits"))
    run_id = deliver(uri, store, opened(store / "runs/a"))
    assert client.get_run(run_id).info.lifecycle_stage == "active"


def test_artifacts_are_copied_and_a_missing_one_holds_up_nothing(uri: str, store: Path) -> None:
    journal = opened(store / "runs/a")
    (store / "trials.csv").write_text("a,b\n")
    write_noise(store / "folder")
    artifacts = {"search": "trials.csv", "more": "folder", "none": "gone"}
    close(journal, 0, artifacts={k: str(store / v) for k, v in artifacts.items()})
    run_id = deliver(uri, store, journal)
    client = connect(uri)
    found = {f.path for at in ("search", "more") for f in client.list_artifacts(run_id, at)}
    assert found == {"search/trials.csv", "more/model.json"}
    assert client.get_run(run_id).info.status == "FINISHED"


def test_a_picture_that_was_cut_short_is_completed(uri: str, store: Path) -> None:
    journal = opened(store / "runs/a")
    report(journal, 1, pictures=True)
    run_id = deliver(uri, store, journal, upto=0)
    client = connect(uri)
    client.log_image(run_id, Image.new("L", (8, 8)), key="samples", step=1)
    [folder] = store.glob("artifacts/**/images")
    [small] = folder.glob("*.webp")
    small.unlink()
    client.delete_tag(run_id, "mlflow.loggedImages")
    deliver(uri, store, journal)
    assert pictures(uri, run_id) == ["samples+step+1+_+compressed.webp", "samples+step+1+_.png"]
    assert client.get_run(run_id).data.tags["mlflow.loggedImages"] == "True"


# -- answers that are lost --------------------------------------------------------------------
def lose_answer(monkeypatch: pytest.MonkeyPatch, method: str, which: int = 1) -> list[int]:
    """Let the `which`-th call of a client's method succeed and then raise; counts the calls."""
    from mlflow import MlflowClient

    calls: list[int] = []
    real: Callable[..., Any] = getattr(MlflowClient, method)

    def lossy(self: MlflowClient, *args: Any, **kwargs: Any) -> Any:
        answer = real(self, *args, **kwargs)
        calls.append(len(calls) + 1)
        if len(calls) == which:
            raise ConnectionError("the answer was lost")
        return answer

    monkeypatch.setattr(MlflowClient, method, lossy)
    return calls


def insist(tracker: Tracker, journal: Journal) -> int:
    """Deliver until it succeeds; how often it did not."""
    for failures in range(20):
        try:
            tracker.deliver(journal)
        except ConnectionError:
            for path in journal.folder.rglob("*.*"):
                path.touch()  # MLflow's own comparison of points must not be what saves us
        else:
            return failures
    raise AssertionError("never delivered")


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
    uri: str, store: Path, monkeypatch: pytest.MonkeyPatch, method: str, which: int
) -> None:
    journal = opened(store / "runs/a")
    report(journal, 1, 2, pictures=True)
    close(journal, 2, summary={"best/val/elbo": -1.0})
    lose_answer(monkeypatch, method, which)
    assert insist(Tracker(uri, store), journal) == 1

    [row] = list_runs(uri)
    assert steps(uri, row.run_id) == steps(uri, row.run_id, "epoch") == [1, 2]
    assert len(connect(uri).get_metric_history(row.run_id, "best/val/elbo")) == 1
    assert len(pictures(uri, row.run_id)) == 4
    assert row.tags["mlflow.loggedImages"] == "True"
    assert row.status == "FINISHED" and row.params == {"model.latent_dim": "16"}
    assert len(connect(uri).get_run(row.run_id).inputs.dataset_inputs) == 1


def test_lost_answers_make_no_second_model(
    uri: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = [
        "log_artifacts",
        "create_logged_model",
        "log_model_artifacts",
        "finalize_logged_model",
        "log_outputs",
        "create_registered_model",
        "create_model_version",
        "set_registered_model_alias",
        "set_model_version_tag",
    ]
    for method in losses:
        lose_answer(monkeypatch, method)
    journal = opened(store / "runs/a")
    report(journal, 1, 2)
    close(
        journal,
        2,
        checkpoint=str(write_noise(store / "runs/a/best")),
        register="vae-digits",
        champion={"metric": "val/elbo", "mode": "max", "value": -1.0},
    )
    assert insist(Tracker(uri, store, load_noise), journal) == len(losses)

    client = connect(uri)
    [row] = list_runs(uri)
    run = client.get_run(row.run_id)
    assert steps(uri, row.run_id) == [1, 2]
    [model] = client.search_logged_models([run.info.experiment_id])
    assert model.status == "READY"
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    [version] = client.search_model_versions("name = 'vae-digits'")
    assert client.get_model_version_by_alias("vae-digits", "champion").version == version.version
    assert journal.delivered()["is_champion"]


# -- the queue --------------------------------------------------------------------------------
def test_sync_waits_for_nothing(uri: str, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    seen: list[int | None] = []
    monkeypatch.setattr(
        Tracker, "deliver", lambda self, journal, upto: (seen.append(upto), gate.wait())
    )
    journal = opened(store / "runs/a")
    tracker = Tracker(uri, store)
    tracker.sync(journal, upto=1)
    while not seen:
        time.sleep(0.001)
    start = time.perf_counter()
    for epoch in range(1000):
        tracker.sync(journal, upto=epoch)
    assert (time.perf_counter() - start) / 1000 < 1e-4
    assert tracker.pending == 2 and not tracker.flush(0.01)
    gate.set()
    assert tracker.close(5) and tracker.pending == 0
    assert seen == [1, 999]  # what came meanwhile is one delivery
    with pytest.raises(RuntimeError):
        tracker.sync(journal)


def test_the_queue_delivers_and_tells_the_run_id(uri: str, store: Path) -> None:
    first, second = opened(store / "runs/a"), opened(store / "runs/b")
    with Tracker(uri, store) as tracker:
        for epoch in (1, 2):
            for journal in (first, second):
                report(journal, epoch)
                tracker.sync(journal, upto=epoch)
        assert tracker.flush(20)
        ids = [tracker.run_id(journal) for journal in (first, second)]
    assert {row.run_id for row in list_runs(uri)} == set(ids)
    assert [steps(uri, str(run_id)) for run_id in ids] == [[1, 2], [1, 2]]


def test_a_run_that_always_fails_holds_up_no_other(
    uri: str, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = Journal(store / "runs/bad")  # was never opened
    good = opened(store / "runs/good")
    report(good, 1)
    tracker = Tracker(uri, store)
    for journal in (bad, good, bad):
        tracker.sync(journal)
    assert not tracker.flush(3)
    assert tracker.run_id(good) and tracker.run_id(bad) is None
    tracker.close(0)
    assert len([r for r in caplog.records if "does not take" in r.message]) == 1


# -- models -----------------------------------------------------------------------------------
def crowned(
    uri: str, store: Path, name: str, value: float, digest: str = DIGEST, **claim: Any
) -> tuple[str, bool]:
    """Deliver a run that claims the alias; the version, and whether it holds the alias."""
    data = {"name": "digits", "digest": digest}
    journal = opened(store / "runs" / name, dataset=data, search_id=f"search-{name}")
    report(journal, 1)
    close(
        journal,
        1,
        checkpoint=str(write_noise(store / "runs" / name / "best", value)),
        register="vae-digits",
        champion={"metric": "val/elbo", "mode": "max", "value": value, **claim},
    )
    deliver(uri, store, journal)
    return journal.delivered()["version"], journal.delivered()["is_champion"]


@pytest.mark.parametrize("before", [None, "http://127.0.0.1:1"])
def test_registering_leaves_the_process_s_tracking_uri_as_it_was(
    before: str | None, uri: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", before)
    assert crowned(uri, store, "first", -20.0) == ("1", True)
    assert os.environ.get("MLFLOW_TRACKING_URI") == before


def test_a_mean_over_seeds_holds_the_alias_against_luck(uri: str, store: Path) -> None:
    assert crowned(uri, store, "lucky", -1.0) == ("1", True)
    assert crowned(uri, store, "confirmed", -5.0, seeds=3) == ("2", True)
    assert crowned(uri, store, "luckier", -0.5) == ("3", False)
    assert crowned(uri, store, "worse", -6.0, seeds=50) == ("4", False)
    assert crowned(uri, store, "better", -4.0, seeds=3) == ("5", True)
    assert crowned(uri, store, "other-data", -99.0, digest="ffff") == ("6", True)
    client = connect(uri)
    assert client.get_model_version("vae-digits", "5").tags["seeds"] == "3"
    assert "the mean of 3 seeds" in str(client.get_model_version("vae-digits", "5").description)


def test_the_alias_goes_to_the_best_of_its_kind(uri: str, store: Path) -> None:
    assert crowned(uri, store, "first", -20.0) == ("1", True)
    assert crowned(uri, store, "worse", -30.0) == ("2", False)
    assert crowned(uri, store, "equal", -20.0) == ("3", True)
    assert crowned(uri, store, "better", -10.0) == ("4", True)
    assert crowned(uri, store, "other-data", -99.0, digest="ffff") == ("5", True)
    assert crowned(uri, store, "low", 5.0, digest="ffff", metric="fd", mode="min") == ("6", True)
    assert crowned(uri, store, "high", 6.0, digest="ffff", metric="fd", mode="min") == ("7", False)

    client = connect(uri)
    old = Journal(store / "runs/better")
    (old.folder / "delivered.json").unlink()
    deliver(uri, store, old)  # an old claim is not made again
    assert client.get_model_version_by_alias("vae-digits", "champion").version == 6
    version = client.get_model_version("vae-digits", "6")
    expected = {"metric": "fd", "mode": "min", "value": "5.0", "data_digest": "ffff"}
    assert expected.items() <= version.tags.items()
    assert version.tags["search_id"] == "search-low" and version.tags["run_id"] == version.run_id
    assert "fd = 5.0 (min)" in version.description


def test_a_model_carries_the_metrics_of_its_epoch(uri: str, store: Path) -> None:
    journal = opened(store / "runs/a")
    report(journal, 1, 2, 3)
    checkpoint = str(write_noise(store / "runs/a/best"))
    close(journal, 3, tags={"best_epoch": "2"}, checkpoint=checkpoint)
    run_id = deliver(uri, store, journal)
    client = connect(uri)
    model = client.get_logged_model(journal.delivered()["model_uri"].removeprefix("models:/"))
    linked = {metric.key: metric.value for metric in model.metrics}
    assert linked == {"train/loss": 0.5, "val/elbo": -2.0, "epoch": 2.0}
    assert model.source_run_id == run_id and model.params == {"model.latent_dim": "16"}
    assert model.model_type == "vae"
    assert client.get_run(run_id).info.status == "FINISHED"
    assert steps(uri, run_id) == [1, 2, 3]  # linking doubles no point
    copy = client.download_artifacts(run_id, "checkpoint", str(store))
    assert load_noise(Path(copy))[1] == 3


def test_a_newer_checkpoint_makes_a_second_model(uri: str, store: Path) -> None:
    journal = opened(store / "runs/a")
    for epoch in (1, 2):
        report(journal, epoch)
        checkpoint = str(write_noise(store / "runs/a" / str(epoch), scale=epoch))
        close(journal, epoch, checkpoint=checkpoint, register="vae-digits")
        deliver(uri, store, journal)
        assert journal.delivered()["version"] == str(epoch)
        assert not journal.delivered()["is_champion"]


def test_what_cannot_be_exported_closes_its_run_all_the_same(uri: str, store: Path) -> None:
    class Undecided(Noise):
        def forward(self, noise: torch.Tensor) -> torch.Tensor:
            return super().forward(noise if float(noise.sum()) > 0.5 else -noise)

    journal = opened(store / "runs/a")
    close(journal, 0, checkpoint=str(write_noise(store / "best")), register="vae-digits")
    tracker = Tracker(uri, store, lambda folder: (Undecided(), 3))
    tracker.deliver(journal)
    client = connect(uri)
    run = client.get_run(str(tracker.run_id(journal)))
    assert run.info.status == "FINISHED" and run.data.tags["model_error"]
    assert not client.search_logged_models([run.info.experiment_id])
    assert client.list_artifacts(run.info.run_id, "checkpoint")


FRESH = """
import sys, numpy as np, torch, mlflow
from mlflow.pyfunc import load_model
assert not any(name.startswith("gen_models") for name in sys.modules)
uri, name, folder = sys.argv[1:]
mlflow.set_tracking_uri(uri)
noise = np.load(f"{folder}/noise.npy")
model = mlflow.pytorch.load_model(f"models:/{name}@champion")
np.save(f"{folder}/torch.npy", model(torch.from_numpy(noise)).detach().numpy())
np.save(f"{folder}/pyfunc.npy", load_model(f"models:/{name}@champion").predict(noise))
"""


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["mlp", "conv"])
def test_a_registered_model_loads_where_our_code_is_not(
    uri: str, store: Path, tmp_path: Path, arch: str
) -> None:
    family = gen_models.family("vae")
    model = family.Model(family.Config(arch=arch, latent_dim=5), DataSpec((1, 8, 8)))
    learner = Learner(model, family.Optim(), seed=0, steps_per_epoch=1)
    checkpoint = tmp_path / "best"
    checkpoint.mkdir()
    save_checkpoint(checkpoint, "vae", family.Optim(), learner)
    journal = opened(store / "runs/a")
    claim = {"metric": "val/elbo", "mode": "max", "value": -1.0}
    close(journal, 0, checkpoint=str(checkpoint), register="vae-digits", champion=claim)
    Tracker(uri, store).deliver(journal)

    noise = np.random.default_rng(0).standard_normal((7, 5), np.float32)
    np.save(tmp_path / "noise.npy", noise)
    arguments = [sys.executable, "-c", FRESH, uri, "vae-digits", str(tmp_path)]
    subprocess.run(arguments, check=True, cwd="/", timeout=120)
    module, noise_dim = load_sampler(checkpoint)
    with torch.no_grad():
        expected = module(torch.from_numpy(noise)).numpy()
    assert noise_dim == 5 and expected.shape == (7, 1, 8, 8)
    for way in ("torch", "pyfunc"):
        assert np.array_equal(np.load(tmp_path / f"{way}.npy"), expected)


# -- reading ----------------------------------------------------------------------------------
def test_runs_are_listed_by_experiment_and_tag(uri: str, store: Path) -> None:
    for name, experiment, kind in [("a", "x", "run"), ("b", "x", "search"), ("c", "y", "run")]:
        journal = opened(store / "runs" / name, experiment=experiment, kind=kind)
        report(journal, 1)
        close(journal, 1)
        deliver(uri, store, journal)
    assert {row.name for row in list_runs(uri)} == {"a", "b", "c"}
    assert {row.name for row in list_runs(uri, "x")} == {"a", "b"}
    [row] = list_runs(uri, "x", {"kind": "search"})
    assert (row.name, row.experiment, row.kind, row.epoch) == ("b", "x", "search", 1)
    assert (row.status, row.outcome) == ("FINISHED", "completed")
    assert row.metrics["val/elbo"] == -1 and row.params["model.latent_dim"] == "16"
    assert abs(row.start_time.timestamp() - time.time()) < 100
    with pytest.raises(InputError, match=r"'z': expected one of .*x, y"):
        list_runs(uri, "z")


def test_more_runs_than_a_page(uri: str, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.tracking.mlflow.reader._PAGE", 2)
    client = connect(uri)
    experiment = client.create_experiment("x")
    ids = {client.create_run(experiment).info.run_id for _ in range(5)}
    rows = list_runs(uri)
    assert len(rows) == 5 and {row.run_id for row in rows} == ids


def test_a_checkpoint_is_found_by_every_name(uri: str, store: Path, tmp_path: Path) -> None:
    crowned(uri, store, "a", 1.0)
    crowned(uri, store, "b", 2.0)
    run_id = str(Tracker(uri).run_id(Journal(store / "runs/b")))
    best = store / "runs/b/best"
    into = tmp_path / "fetched"

    def same(*models: str) -> set[Path]:
        return {resolve_checkpoint(uri, model, into) for model in models}

    registered = ["models:/vae-digits/2", "models:/vae-digits@champion", "vae-digits@champion"]
    assert same(str(best), run_id, "b", *registered) == {best}
    shutil.rmtree(best)
    [fetched] = same(run_id, "b", *registered)
    assert fetched.is_relative_to(into) and load_noise(fetched)[1] == 3
    write_noise(best, scale=77)  # another checkpoint where that of the version was
    assert same("vae-digits@champion") == {fetched}


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
def test_a_model_that_is_not_there(uri: str, store: Path, model: str, message: str) -> None:
    client = connect(uri)
    client.create_registered_model("vae-digits")
    for name in ("bare", "twice", "twice"):
        client.create_run("0", run_name=name)
    with pytest.raises(InputError, match=message):
        resolve_checkpoint(uri, model, store / "into")


# -- the store --------------------------------------------------------------------------------
def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/below", Path("/proc/genpipe")):
        with pytest.raises(InputError, match=f"store = '{folder}': expected a writable folder"):
            tracking_uri(folder)


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "/tmp/mlruns", "s3://b/runs"])
def test_a_folder_is_no_tracking_uri(tmp_path: Path, uri: str) -> None:
    with pytest.raises(InputError, match="expected sqlite:///FILE, postgresql://"):
        tracking_uri(tmp_path, uri)


def test_a_database_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database " * 100)
    for uri in (f"sqlite:///{tmp_path}/text", "sqlite:////proc/none/x.db", "sqlite://"):
        with pytest.raises(InputError, match="tracking_uri"):
            tracking_uri(tmp_path, uri)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(InputError) as caught:
        tracking_uri(tmp_path, f"http://ada:secret@127.0.0.1:{free_port()}")
    assert time.monotonic() - start < 10
    text = str(caught.value)
    assert "does not answer" in text and "Connection refused" in text and "secret" not in text
    assert "leave --tracking-uri out" in text


@pytest.mark.slow
def test_a_server_that_never_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        start = time.monotonic()
        with pytest.raises(InputError, match="does not answer"):
            tracking_uri(tmp_path, f"http://127.0.0.1:{mute.getsockname()[1]}")
    assert time.monotonic() - start < 12


def test_passwords_are_not_shown() -> None:
    assert without_password("postgresql://ada:x@y@db:5/m") == "postgresql://ada@db:5/m"
    assert without_password("http://host:5000") == "http://host:5000"


def test_the_package_is_imported_fast() -> None:
    code = "import sys, pipelines.tracking; print({'mlflow', 'torch', 'ray'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"set()\n"


def test_lineage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tags = lineage()
    assert re.fullmatch(r"unknown|[0-9a-f]{40}(-dirty)?", tags["git_commit"])
    assert tags["version.mlflow"].startswith("3.") and tags["version.torch"]
    module = sys.modules["pipelines.tracking.provenance"]
    monkeypatch.setattr(module, "__file__", str(tmp_path / "lineage.py"))
    assert lineage()["git_commit"] == "unknown"
    for step in ("init -q", "add .", "commit -q -m x"):
        (tmp_path / "lineage.py").touch()
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *step.split()], check=True)
    tags = lineage()
    assert re.fullmatch(r"[0-9a-f]{40}", tags["git_commit"])
    assert tags["mlflow.source.git.commit"] == tags["git_commit"]
    (tmp_path / "lineage.py").write_text("changed")
    assert lineage()["git_commit"] == tags["git_commit"] + "-dirty"


def test_a_port_that_is_taken(uri: str, store: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port = {port}: expected a free port"):
            browse(uri, store, port)


def test_a_server_has_its_own_page(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    browse("http://host:5000", store)
    assert capsys.readouterr().out == "MLflow's page: http://host:5000\n"


# -- a real server ----------------------------------------------------------------------------
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextlib.contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own group, all of which is killed at the end."""
    running = subprocess.Popen(
        command,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )
    try:
        yield running
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()


@contextlib.contextmanager
def serve(store: Path, port: int) -> Iterator[str]:
    """An MLflow server that keeps its files itself."""
    options = {
        "--backend-store-uri": f"sqlite:///{store}/mlflow.db",
        "--artifacts-destination": str(store / "served"),
        "--port": str(port),
        "--workers": "1",
    }
    arguments = [part for option in options.items() for part in option]
    with process(sys.executable, "-m", "mlflow", "server", *arguments):
        await_page(port)
        yield f"http://127.0.0.1:{port}"


def await_page(port: int) -> None:
    for _ in range(600):
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"http://127.0.0.1:{port}/health", timeout=1).ok:
                return
        time.sleep(0.1)
    raise TimeoutError("no MLflow server within a minute")


class Proxy(ThreadingHTTPServer):
    """Passes requests on, and loses the answer of the first whose path ends in `lose`."""

    def __init__(self, behind: str, lose: str) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.behind, self.lose, self.lost = behind, lose, 0

    def __enter__(self) -> Proxy:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()


class Passing(BaseHTTPRequestHandler):
    server: Proxy

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = self.server.behind + self.path
        headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
        answer = requests.request(self.command, url, data=body, headers=headers, timeout=30)
        if self.path.endswith(self.server.lose) and not self.server.lost:
            self.server.lost += 1
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(answer.status_code)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.slow
def test_an_outage_loses_and_doubles_nothing(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    port = free_port()
    journals = [opened(store / f"runs/{name}") for name in "ab"]
    with serve(store, port) as uri:
        tracker = Tracker(tracking_uri(store, uri))
        for epoch in (1, 2, 3):
            for journal in journals:
                report(journal, epoch, pictures=True)
                tracker.sync(journal, upto=epoch)
        assert tracker.flush(60)
        report(journals[0], 4, pictures=True)
        tracker.sync(journals[0])  # under way when the server is killed
    for epoch in (5, 6, 7):
        for journal in journals:
            report(journal, epoch, pictures=True)
            start = time.perf_counter()
            tracker.sync(journal)
            assert time.perf_counter() - start < 0.01
    report(journals[1], 4, pictures=True)
    close(journals[0], 7)
    tracker.sync(journals[0])
    assert not tracker.flush(8)
    with serve(store, port):
        assert tracker.close(60)
        for journal in journals:
            run_id = str(tracker.run_id(journal))
            assert steps(uri, run_id) == steps(uri, run_id, "epoch")
            assert sorted(steps(uri, run_id)) == list(range(1, 8))
            assert len(pictures(uri, run_id)) == 14
        assert {row.status for row in list_runs(uri)} == {"FINISHED", "RUNNING"}
    said = [record.message for record in caplog.records if record.name.startswith("pipelines")]
    assert len(said) == 2 and "training goes on" in said[0] and "again" in said[1]


@pytest.mark.slow
@pytest.mark.parametrize("retries", ["0", "2"])
def test_an_answer_lost_on_the_way(
    store: Path, monkeypatch: pytest.MonkeyPatch, retries: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", retries)
    with serve(store, free_port()) as behind:
        lossy = ["runs/create", "runs/log-batch", ".png", "logged-models", "model-versions/create"]
        for number, lose in enumerate(lossy):
            journal = opened(store / f"runs/{number}", experiment=f"x-{number}")
            report(journal, 1, 2, pictures=True)
            close(journal, 2, checkpoint=str(write_noise(store / "best")), register=f"x-{number}")
            with Proxy(behind, lose) as proxy:
                tracker = Tracker(f"http://127.0.0.1:{proxy.server_port}", None, load_noise)
                tracker.sync(journal)
                assert tracker.close(60) and proxy.lost == 1
            [row] = list_runs(behind, f"x-{number}")
            assert steps(behind, row.run_id) == steps(behind, row.run_id, "epoch") == [1, 2]
            assert len(pictures(behind, row.run_id)) == 4
            client = connect(behind)
            [model] = client.search_logged_models([client.get_run(row.run_id).info.experiment_id])
            assert model.status == "READY"
            assert len(client.search_model_versions(f"name = 'x-{number}'")) == 1


@pytest.mark.slow
def test_a_server_keeps_checkpoints_too(store: Path, tmp_path: Path) -> None:
    with serve(store, free_port()) as uri:
        assert tracking_uri(store, uri + "/") == uri
        assert crowned(uri, store, "a", 1.0) == ("1", True)
        shutil.rmtree(store / "runs/a/best")
        fetched = resolve_checkpoint(uri, "vae-digits@champion", tmp_path / "into")
        assert load_noise(fetched)[1] == 3
        assert not (store / "artifacts").exists()


@pytest.mark.slow
def test_the_page_shows_the_store(uri: str, store: Path) -> None:
    run_id = deliver(uri, store, opened(store / "runs/a"))
    port = free_port()
    code = "import sys; from pathlib import Path; from pipelines.tracking import browse\n"
    code += "browse(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))"
    with process(sys.executable, "-c", code, uri, str(store), str(port)):
        await_page(port)
        page = f"http://127.0.0.1:{port}"
        assert "<html" in requests.get(page, timeout=5).text
        assert [row.run_id for row in list_runs(page)] == [run_id]
