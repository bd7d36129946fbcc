"""Who may see what is recorded: MLflow's page with a login, and a server that asks for one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import requests
from support.journals import open_journal, write_epochs
from support.mlflow_page import page
from support.mlflow_runs import close

from pipelines.store.layout import Store

pytestmark = pytest.mark.slow
PASSWORD = "planted-pass%2Fword 1"
OTHER = "another-planted-password"


def search(address: str, login: tuple[str, str] | None, **headers: str) -> int:
    """Return the status of a request for the experiments."""
    url = f"{address}/api/2.0/mlflow/experiments/search?max_results=5"
    return requests.get(url, auth=login, headers=headers, timeout=30).status_code


def test_the_page_asks_for_a_password(tmp_path: Path, mlflow_database: Path) -> None:
    store = Store.at(tmp_path)
    shutil.copy(mlflow_database, store.database)
    journal = open_journal(store.run("a").path)
    write_epochs(journal, 1)
    close(journal, 1)
    with page(store, PASSWORD, "--auth") as address:
        assert search(address, None) == 401
        for wrong in (
            ("ada", "wrong"),
            ("ada", ""),
            ("admin", PASSWORD),
            ("admin", "password1234"),
        ):
            assert search(address, wrong) == 401
        assert requests.get(address, timeout=30).status_code == 401
        assert search(address, ("ada", PASSWORD)) == 200
        # A page of another site whose name leads to this address.
        assert search(address, ("ada", PASSWORD), Host="attacker.example") == 403
    with page(store, OTHER, "--auth") as address:  # the environment's password counts
        assert search(address, ("ada", PASSWORD)) == 401
        assert search(address, ("ada", OTHER)) == 200
    for path in store.root.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert PASSWORD.encode() not in content and OTHER.encode() not in content, path
    assert store.users.stat().st_mode & 0o077 == 0


def test_without_a_login_the_page_is_of_this_machine_alone(
    tmp_path: Path, mlflow_database: Path
) -> None:
    store = Store.at(tmp_path)
    shutil.copy(mlflow_database, store.database)
    with page(store, PASSWORD) as address:
        assert search(address, None) == 200
        assert search(address, None, Host="attacker.example") == 403
