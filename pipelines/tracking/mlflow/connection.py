"""Connections to an MLflow server or database, checked before any training begins.

MLflow's own client waits minutes for a server that does not answer, and creates folders wherever a
mistyped URI points; these checks find both at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from gen_models.core.errors import InputError
from pipelines.store.layout import Store
from pipelines.tracking.queue import reason

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from sqlalchemy import URL

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

    return MlflowClient(uri, uri)


def without_password(uri: str) -> str:
    """Return the URI without its password, as it may be shown and written down."""
    head, at, tail = uri.rpartition("@")
    scheme, _, login = head.partition("://")
    return f"{scheme}://{login.split(':')[0]}@{tail}" if at else uri


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
            f"tracking server {without_password(uri)} does not answer ({reason(error)}): start "
            "it, or leave --tracking-uri out to record in STORE/mlflow.db"
        ) from error


def _require_database(uri: str) -> str:
    """Return the URI with an absolute path. The database has MLflow's tables, or it is a new file,
    in which MLflow creates them when the first run is recorded."""
    import sqlalchemy  # light: of a database only

    try:
        url = _absolute(sqlalchemy.make_url(uri))
        full = url.render_as_string(hide_password=False)
        if not _is_new(url):
            engine = sqlalchemy.create_engine(url)
            sqlalchemy.inspect(engine).get_table_names()
            engine.dispose()
            make_tables(full)
    except _database_errors() as error:
        raise InputError(
            f"tracking_uri = {without_password(uri)!r}: expected a database that MLflow can use: "
            f"{reason(error)}"
        ) from error
    return full


def make_tables(uri: str) -> None:
    """Query the database or server once: MLflow then creates a new database's tables."""
    connect(uri).search_experiments(max_results=1)


def _database_errors() -> tuple[type[Exception], ...]:
    from mlflow.exceptions import MlflowException  # light: after an error only
    from sqlalchemy.exc import SQLAlchemyError  # light: after an error only

    return SQLAlchemyError, MlflowException, ImportError, OSError


def _is_new(url: URL) -> bool:
    """Return whether the URL is a SQLite file that does not exist and can be created: then there
    is nothing to check with mlflow, whose import takes seconds."""
    if url.get_backend_name() != "sqlite" or Path(url.database or "").exists():
        return False
    return os.access(Path(url.database or "").parent, os.W_OK)


def _absolute(url: URL) -> URL:
    if url.get_backend_name() != "sqlite":
        return url
    if not url.database or url.database == ":memory:":
        raise InputError(f"tracking_uri = {str(url)!r}: expected sqlite:///FILE")
    return url.set(database=str(Path(url.database).absolute()))
