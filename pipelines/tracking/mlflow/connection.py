"""Where runs are recorded, and that it answers before any training begins.

MLflow's own client waits minutes for a server that is not there, and creates folders wherever a
mistyped URI points. Both are found out here, at once.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from gen_models.core.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from sqlalchemy import URL

_PROBE_SECONDS = 4


def tracking_uri(store: Path, uri: str | None = None) -> str:
    """MLflow's tracking URI: `uri`, or the environment's MLFLOW_TRACKING_URI, or the database
    `mlflow.db` in the store, created if need be.

    Raises `InputError` where the store cannot be written, where nothing answers at `uri` within
    some ten seconds, or where `uri` is a folder.
    """
    store = store.absolute()
    _require_writable(store)
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store}/mlflow.db"
    scheme, found, _ = uri.partition("://")
    if found and scheme in {"http", "https"}:
        _require_server(uri)
        return uri.rstrip("/")
    if found and scheme.split("+")[0] in {"sqlite", "postgresql", "mysql", "mssql"}:
        return _require_database(uri)
    raise InputError(
        f"tracking_uri = {uri!r}: expected sqlite:///FILE, postgresql://… or http(s)://HOST:PORT "
        "(MLflow no longer records in plain folders)"
    )


def artifact_location(uri: str, store: Path | None, experiment: str) -> str | None:
    """Where an experiment keeps its files: in the store, unless a server has its own place."""
    if store is None or uri.startswith("http"):
        return None
    return (store.absolute() / "artifacts" / experiment).as_uri()


def connect(uri: str) -> MlflowClient:
    """A client of the tracking server and of the registry at `uri`; changes no global state."""
    from mlflow import MlflowClient

    return MlflowClient(uri, uri)


def without_password(uri: str) -> str:
    """The URI as it may be shown and written down."""
    head, at, tail = uri.rpartition("@")
    scheme, _, login = head.partition("://")
    return f"{scheme}://{login.split(':')[0]}@{tail}" if at else uri


def reason(error: BaseException) -> str:
    """What went wrong at the bottom of a chain of errors, in one line."""
    while inner := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = inner
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:199]}…"


def _require_writable(store: Path) -> None:
    try:
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=store):
            pass
    except OSError as error:
        raise InputError(f"store = {str(store)!r}: expected a writable folder: {error}") from error


def _require_server(uri: str) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request, verify_rest_response

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
    """The URI, absolute; the database has MLflow's tables, or is a new file, in which MLflow
    makes them when the first run is recorded."""
    import sqlalchemy

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
    """Have MLflow look into the database or server, which makes a new database's tables."""
    connect(uri).search_experiments(max_results=1)


def _database_errors() -> tuple[type[Exception], ...]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return SQLAlchemyError, MlflowException, ImportError, OSError


def _is_new(url: URL) -> bool:
    """Whether it is a file that is yet to be made, and can be: then mlflow, which takes seconds
    to import, need not be asked."""
    if url.get_backend_name() != "sqlite" or Path(url.database or "").exists():
        return False
    return os.access(Path(url.database or "").parent, os.W_OK)


def _absolute(url: URL) -> URL:
    if url.get_backend_name() != "sqlite":
        return url
    if not url.database or url.database == ":memory:":
        raise InputError(f"tracking_uri = {str(url)!r}: expected sqlite:///FILE")
    return url.set(database=str(Path(url.database).absolute()))
