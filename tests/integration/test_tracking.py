"""MLflow as a server: outages, answers that are lost, files that it keeps, its page; and models
that load where genpipe is not installed."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from support.journals import open_journal, write_epochs
from support.mlflow_runs import (
    close,
    deliver,
    deliver_claim,
    list_runs,
    load_noise,
    pictures,
    steps,
    write_noise,
    writer,
)

import gen_models
from gen_models import Learner
from gen_models.core.checkpoint import load_sampler, save_checkpoint
from gen_models.core.data import DataSpec
from gen_models.core.errors import InputError
from pipelines.store.journal import Journal
from pipelines.store.layout import Store
from pipelines.tracking.base import tracking_uri
from pipelines.tracking.mlflow import BACKEND
from pipelines.tracking.mlflow.connection import connect
from pipelines.tracking.mlflow.reader import MlflowReader
from pipelines.tracking.mlflow.writer import MlflowWriter
from pipelines.tracking.queue import open_tracker

pytestmark = pytest.mark.slow


@pytest.fixture
def store(tmp_path: Path, mlflow_database: Path) -> Iterator[Store]:
    shutil.copy(mlflow_database, tmp_path / "mlflow.db")
    with BACKEND.settings():
        yield Store.at(tmp_path)


@pytest.fixture
def uri(store: Store) -> str:
    return tracking_uri(store)


FRESH = """
import sys, numpy as np, torch, mlflow
from mlflow.pyfunc import load_model
assert not any(name.startswith("gen_models") for name in sys.modules)
uri, folder, *names = sys.argv[1:]
mlflow.set_tracking_uri(uri)
noise = np.load(f"{folder}/noise.npy")
for name in names:
    model = mlflow.pytorch.load_model(f"models:/{name}@champion")
    np.save(f"{folder}/{name}-torch.npy", model(torch.from_numpy(noise)).detach().numpy())
    images = load_model(f"models:/{name}@champion").predict(noise)
    np.save(f"{folder}/{name}-pyfunc.npy", images)
"""


def test_registered_models_load_where_our_code_is_not(
    uri: str, store: Store, tmp_path: Path
) -> None:
    family, checkpoints = gen_models.family("vae"), {}
    for arch in ("mlp", "conv"):
        model = family.Model(family.Config(arch=arch, latent_dim=5), DataSpec((1, 8, 8)))
        learner = Learner(model, family.Optim(), seed=0, steps_per_epoch=1)
        checkpoints[arch] = store.run(arch).path / "best"
        checkpoints[arch].mkdir(parents=True)
        save_checkpoint(checkpoints[arch], "vae", family.Optim(), learner)
        journal = open_journal(store.run(arch).path)
        claim = {"metric": "val/elbo", "mode": "max", "value": -1.0}
        close(journal, 0, checkpoint=str(checkpoints[arch]), register=arch, champion=claim)
        MlflowWriter(uri, store).deliver(journal)  # exports it as the program does

    noise = np.random.default_rng(0).standard_normal((7, 5), np.float32)
    np.save(tmp_path / "noise.npy", noise)
    arguments = [sys.executable, "-c", FRESH, uri, str(tmp_path), *checkpoints]
    subprocess.run(arguments, check=True, cwd="/", timeout=300)
    for arch, checkpoint in checkpoints.items():
        module, noise_dim = load_sampler(checkpoint)
        with torch.no_grad():
            expected = module(torch.from_numpy(noise)).numpy()
        assert noise_dim == 5 and expected.shape == (7, 1, 8, 8)
        for way in ("torch", "pyfunc"):
            assert np.array_equal(np.load(tmp_path / f"{arch}-{way}.npy"), expected)


def test_a_server_that_never_answers(tmp_path: Path) -> None:
    """The test's own timeout is the limit: MLflow's client would wait for minutes."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        uri = f"http://127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(InputError, match="does not answer"):
            tracking_uri(Store.at(tmp_path), uri)


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
def serve(store: Store, port: int) -> Iterator[str]:
    """An MLflow server that keeps its files itself."""
    options = {
        "--backend-store-uri": f"sqlite:///{store.root}/mlflow.db",
        "--artifacts-destination": str(store.root / "served"),
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


def test_an_outage_loses_and_doubles_nothing(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    port = free_port()
    journals = [open_journal(store.run(name).path) for name in "ab"]
    with ExitStack() as stack:
        with serve(store, port) as uri:
            tracker = stack.enter_context(open_tracker(tracking_uri(store, uri), store))
            for epoch in (1, 2, 3):
                for journal in journals:
                    write_epochs(journal, epoch, pictures=True)
                    tracker.sync(journal, upto=epoch)
            assert tracker.flush(120)
            write_epochs(journals[0], 4, pictures=True)
            tracker.sync(journals[0])  # under way when the server is killed
        for epoch in (5, 6, 7):
            for journal in journals:
                write_epochs(journal, epoch, pictures=True)
                tracker.sync(journal)
        write_epochs(journals[1], 4, pictures=True)
        close(journals[0], 7)
        tracker.sync(journals[0])
        while not any("does not take" in text for text in messages(caplog)):
            assert not tracker.flush(1)  # nothing answers
        with serve(store, port):
            assert tracker.flush(300)
            for journal in journals:
                run_id = str(tracker.run_id(journal))
                assert steps(uri, run_id) == steps(uri, run_id, "system/epoch")
                assert sorted(steps(uri, run_id)) == list(range(1, 8))
                assert len(pictures(uri, run_id)) == 14
            statuses = {row.status for row in list_runs(uri, store)}
            assert statuses == {"FINISHED", "RUNNING"}
    first, last = messages(caplog)
    assert "training goes on" in first and "again" in last


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings of the pipeline."""
    return [record.message for record in caplog.records if record.name.startswith("pipelines")]


def deliver_until_taken(client: MlflowWriter, journal: Journal) -> None:
    """Deliver until it succeeds; without retries of MLflow's client the first attempt fails."""
    for _ in range(3):
        with contextlib.suppress(Exception):
            client.deliver(journal)
            return
    raise AssertionError("never delivered")


@pytest.mark.parametrize("retries", ["0", "2"])
def test_an_answer_lost_on_the_way(
    store: Store, monkeypatch: pytest.MonkeyPatch, retries: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", retries)
    with serve(store, free_port()) as behind:
        lossy = ["runs/create", "runs/log-batch", ".png", "logged-models", "model-versions/create"]
        for number, lose in enumerate(lossy):
            journal = open_journal(store.root / f"runs/{number}", experiment=f"x-{number}")
            write_epochs(journal, 1, 2, pictures=True)
            close(
                journal,
                2,
                checkpoint=str(write_noise(store.root / "best")),
                register=f"x-{number}",
            )
            with Proxy(behind, lose) as proxy:
                between = f"http://127.0.0.1:{proxy.server_port}"
                deliver_until_taken(writer(between, store), journal)
                assert proxy.lost == 1
            [row] = list_runs(behind, store, f"x-{number}")
            assert steps(behind, row.run_id) == steps(behind, row.run_id, "system/epoch") == [1, 2]
            assert len(pictures(behind, row.run_id)) == 4
            client = connect(behind)
            [model] = client.search_logged_models([client.get_run(row.run_id).info.experiment_id])
            assert model.status == "READY"
            assert len(client.search_model_versions(f"name = 'x-{number}'")) == 1


def test_a_server_keeps_checkpoints_too(store: Store, tmp_path: Path) -> None:
    with serve(store, free_port()) as uri:
        assert tracking_uri(store, uri + "/") == uri
        assert deliver_claim(uri, store, "a", 1.0) == ("1", True)
        shutil.rmtree(store.root / "runs/a/best")
        reader = MlflowReader(uri, store)
        fetched = reader.checkpoint("vae-digits@champion", tmp_path / "into")
        assert load_noise(fetched)[1] == 3
        assert not (store.root / "artifacts").exists()


def test_the_page_shows_the_store(uri: str, store: Store) -> None:
    run_id = deliver(uri, store, open_journal(store.root / "runs/a"))
    port = free_port()
    command = [sys.executable, "-m", "pipelines", "browse"]
    with process(*command, "--store", str(store.root), "--port", str(port)):
        await_page(port)
        page = f"http://127.0.0.1:{port}"
        assert "<html" in requests.get(page, timeout=5).text
        assert [row.run_id for row in list_runs(page, store)] == [run_id]
