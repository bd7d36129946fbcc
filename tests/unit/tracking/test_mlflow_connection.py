"""Connections to MLflow are checked, its page is served, and the process is left as it was."""

import os
import socket
from pathlib import Path

import pytest
from support.journals import open_journal, write_epochs
from support.mlflow_runs import deliver_claim

from gen_models.core.errors import InputError
from pipelines.catalog.runs import runs
from pipelines.store.layout import Store
from pipelines.tracking.base import tracking_uri
from pipelines.tracking.mlflow import BACKEND
from pipelines.tracking.mlflow.server import serve
from pipelines.tracking.queue import open_tracker


def test_a_database_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database " * 100)
    for uri in (f"sqlite:///{tmp_path}/text", "sqlite:////proc/none/x.db", "sqlite://"):
        with pytest.raises(InputError, match="tracking_uri"):
            tracking_uri(Store.at(tmp_path), uri)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(InputError) as caught:
        tracking_uri(Store.at(tmp_path), f"http://ada:secret@127.0.0.1:{port}")
    text = str(caught.value)
    assert "does not answer" in text and "Connection refused" in text and "secret" not in text
    assert "leave --tracking-uri out" in text


def test_a_port_that_is_taken(uri: str, store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port = {port}: expected a free port"):
            serve(uri, store, port, links={})


def test_a_server_has_its_own_page(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    serve("http://host:5000", store, 5000, links={})
    assert capsys.readouterr().out == "MLflow's page: http://host:5000\n"


# -- the process ---------------------------------------------------------------------------------
@pytest.fixture
def bare(store: Store, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a user who has set none of MLflow's variables."""
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "DO_NOT_TRACK")):
            monkeypatch.delenv(name)
    return environment()


def environment() -> dict[str, str]:
    """Return the environment, without what pytest changes in it between setup and call."""
    return {name: text for name, text in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def test_mlflow_s_variables_are_set_for_a_block(
    bare: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with BACKEND.settings():
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"
        assert os.environ["DO_NOT_TRACK"] == "true"
    assert environment() == bare
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "9")  # the user's own stays
    with BACKEND.settings():
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "9"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "9"


def test_a_check_a_delivery_and_a_list_leave_the_process_as_it_was(
    bare: dict[str, str], store: Store
) -> None:
    import mlflow

    before = mlflow.get_tracking_uri()
    assert environment() == bare
    uri = tracking_uri(store)
    journal = open_journal(store.run("a").path)
    write_epochs(journal, 1, pictures=True)
    with open_tracker(uri, store) as tracker:
        assert "MLFLOW_HTTP_REQUEST_TIMEOUT" in os.environ
        tracker.sync(journal)
        assert tracker.flush(120)
    assert [run.name for run in runs(store=store.root).runs] == ["a"]
    assert environment() == bare and mlflow.get_tracking_uri() == before


@pytest.mark.parametrize("before", [None, "http://127.0.0.1:1"])
def test_registering_leaves_the_process_s_tracking_uri_as_it_was(
    before: str | None, uri: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    if before:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", before)
    seen = mlflow.get_tracking_uri()
    assert deliver_claim(uri, store, "first", -20.0) == ("1", True)
    assert os.environ.get("MLFLOW_TRACKING_URI") == before and mlflow.get_tracking_uri() == seen


def test_a_login_needs_a_password(uri: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD", raising=False)
    with pytest.raises(InputError, match="expected a password in the environment's MLFLOW_TRACK"):
        serve(uri, store, port, auth=True, links={})
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "short")
    with pytest.raises(InputError, match="at least 12 characters") as caught:
        serve(uri, store, port, auth=True, links={})
    assert "short" not in str(caught.value) and not store.users.exists()
    with pytest.raises(InputError, match="auth = True: expected no --auth, because the server"):
        serve("http://host:5000", store, port, auth=True, links={})
