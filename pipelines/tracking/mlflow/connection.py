"""Connections to an MLflow server or database, checked before any training begins.

MLflow's own client waits minutes for a server that does not answer, and creates folders wherever a
mistyped URI points; these checks find both at once.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from gen_models.core.errors import InputError, require
from pipelines.store.layout import Store
from pipelines.store.secrets import hide
from pipelines.tracking.mlflow.database import ensure_database, is_complete
from pipelines.tracking.queue import reason

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PROBE_SECONDS = 4


SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")
"""Schemes of the URIs that MLflow records at."""


def require_uri(uri: str) -> str:
    """Return the tracking URI in its full form.

    Raises `InputError` if nothing answers there within some ten seconds.
    """
    if uri.startswith("http"):
        _require_server(uri)
        return uri.rstrip("/")
    return _require_database(uri)


def artifact_location(uri: str, store: Store, experiment: str) -> str | None:
    """Return where an experiment's artifacts are put: in the store; None leaves it to a server."""
    return None if uri.startswith("http") else (store.artifacts / experiment).as_uri()


def connect(uri: str) -> MlflowClient:
    """Return a client of the tracking server and the registry at `uri`. Sets no global state."""
    from mlflow import MlflowClient  # light: commands check a URI without a client

    if uri.startswith("sqlite"):
        ensure_database(database_file(uri))  # the client would make its tables itself, unlocked
    return MlflowClient(uri, uri)


def database_file(uri: str) -> Path:
    """Return the file of a SQLite URI. Without SQLAlchemy, which takes a third of a second."""
    return Path(uri.partition(":///")[2])


def _require_server(uri: str) -> None:
    from mlflow.exceptions import MlflowException  # light: of a server only
    from mlflow.utils.credentials import get_default_host_creds  # light: of a server only
    from mlflow.utils.rest_utils import (  # light: of a server only
        http_request,
        verify_rest_response,
    )

    endpoint = "/api/2.0/mlflow/experiments/search"
    try:
        response = http_request(  # type: ignore[no-untyped-call]
            get_default_host_creds(uri),  # type: ignore[no-untyped-call]
            endpoint,
            "GET",
            params={"max_results": 1},
            max_retries=1,
            backoff_factor=1,
            timeout=_PROBE_SECONDS,
        )
        verify_rest_response(response, endpoint)
    except MlflowException as error:
        raise InputError(
            f"tracking server {hide(uri)} does not answer ({reason(error)}): start "
            "it, or leave --tracking-uri out to record in STORE/mlflow.db"
        ) from error


def _require_database(uri: str) -> str:
    """Return the URI with an absolute path. The database has MLflow's tables, or it is a new file,
    in which MLflow creates them when the first run is recorded."""
    try:
        if not uri.startswith("sqlite"):
            make_tables(uri)
            return uri
        full = _absolute(uri)
        file = database_file(full)
        if file.exists():
            if not is_complete(file):
                make_tables(full)
        elif not os.access(file.parent, os.W_OK):
            raise PermissionError(f"{file.parent} is no folder that can be written")
    except _database_errors() as error:
        raise InputError(
            f"tracking_uri = {hide(uri)!r}: expected a database that MLflow can use: "
            f"{reason(error)}"
        ) from error
    return full


def make_tables(uri: str) -> None:
    """Create a new database's tables, and query the database or server once."""
    connect(uri).search_experiments(max_results=1)


def _database_errors() -> tuple[type[Exception], ...]:
    from mlflow.exceptions import MlflowException  # light: after an error only
    from sqlalchemy.exc import SQLAlchemyError  # light: after an error only

    return SQLAlchemyError, MlflowException, sqlite3.Error, ImportError, OSError


def _absolute(uri: str) -> str:
    """Return a SQLite URI with an absolute path. SQLAlchemy would quote it, and MLflow would then
    create folders of the quoted name, so characters that need it are refused."""
    plain = "sqlite:///FILE with a path without % and ?"
    require("%" not in uri and "?" not in uri, "tracking_uri", uri, plain)
    driver, _, path = uri.partition(":///")
    require(path not in ("", ":memory:"), "tracking_uri", uri, "sqlite:///FILE")
    return f"{driver}:///{Path(path).absolute()}"
