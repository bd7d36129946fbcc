"""Tracking systems are found by their URIs; stores and URIs that cannot be used are refused."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.tracking import BACKEND as MEMORY
from support.tracking import MemoryServer, write_tracker_package

from gen_models.core.errors import InputError
from pipelines.store.layout import Store
from pipelines.tracking.base import Backend, find_backend, recorded_uri, tracking_uri
from pipelines.tracking.mlflow import BACKEND as MLFLOW

MEMORY_URI = "memory://test"


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:////s/mlflow.db",
        "http://host:5000",
        "https://host/mlflow",
        "postgresql://ada@db/m",
        "postgresql+psycopg2://ada@db/m",
        "mysql+pymysql://ada@db/m",
    ],
)
def test_mlflow_is_found_by_its_uris(uri: str) -> None:
    assert find_backend(uri) is MLFLOW


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "/tmp/mlruns", "s3://b/runs", ""])
def test_a_uri_that_no_tracking_system_accepts(uri: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected sqlite:///FILE, postgresql://"):
        find_backend(uri)
    if uri:
        with pytest.raises(InputError, match=f"tracking_uri = '{uri}'"):
            tracking_uri(Store.at(tmp_path), uri)


def test_another_package_s_tracking_system_is_found(memory_server: MemoryServer) -> None:
    assert find_backend(MEMORY_URI) is MEMORY
    assert find_backend("sqlite:///x.db") is MLFLOW
    assert isinstance(MEMORY, Backend)


def test_without_that_package_it_is_not_found() -> None:
    with pytest.raises(InputError, match="tracking_uri = 'memory://test'"):
        find_backend(MEMORY_URI)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "no_such_module:BACKEND",
            "'memory': entry point no_such_module:BACKEND is broken",
        ),
        ("support.tracking:NOTHING", "entry point support.tracking:NOTHING is broken"),
        ("support.tracking:SETTING", "expected a pipelines.tracking.base.Backend"),
    ],
)
def test_a_broken_package_is_named(
    value: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tracker_package(tmp_path, value)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=message):
        find_backend(MEMORY_URI)
    assert find_backend("sqlite:///x.db") is MLFLOW  # which does not need it


# -- where a command records ---------------------------------------------------------------------
def test_a_command_records_in_the_store_unless_it_is_told_where(
    memory_server: MemoryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.at(tmp_path / "runs")
    assert tracking_uri(store) == f"sqlite:///{tmp_path}/runs/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", MEMORY_URI)
    assert tracking_uri(store) == MEMORY_URI
    assert tracking_uri(store, "sqlite:///x.db") == f"sqlite:///{Path.cwd()}/x.db"


def test_a_command_that_reads_wants_something_recorded(
    memory_server: MemoryServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recorded_uri(store) == f"sqlite:///{store.database}"
    empty = Store.at(store.root / "empty")
    with pytest.raises(InputError) as caught:
        recorded_uri(empty)
    expected = "expected a folder in which runs are recorded"
    assert str(caught.value) == f"store = '{empty.root}': {expected}"
    assert not empty.root.exists()
    assert recorded_uri(empty, MEMORY_URI) == MEMORY_URI
    monkeypatch.setenv("MLFLOW_TRACKING_URI", MEMORY_URI)
    assert recorded_uri(empty) == MEMORY_URI


def test_a_server_is_asked_first(memory_server: MemoryServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="tracking_uri = 'memory://other': expected a server"):
        tracking_uri(Store.at(tmp_path), "memory://other")


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/below", Path("/proc/genpipe")):
        with pytest.raises(InputError, match=f"store = '{folder}': expected a writable folder"):
            tracking_uri(Store(folder))


def test_the_package_is_light_to_import() -> None:
    code = (
        "import sys, pipelines.tracking.queue, pipelines.tracking.mlflow\n"
        "print({'mlflow', 'torch', 'ray'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"set()\n"
