"""Follows a store that was moved, or is mounted elsewhere.

MLflow records absolute places of its files in the database. In a store's own database they are
those of the store's folder `artifacts`, wherever that is now.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from urllib.parse import urlsplit

from pipelines.store.layout import Store
from pipelines.tracking.mlflow.connection import database_file

_PLACES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}
"""Columns of MLflow's tables that hold the places of files."""
_log = logging.getLogger(__name__)


def follow_store(uri: str, store: Store) -> None:
    """Have a store's own database name the files where they are, if the store was moved. Of any
    other database nothing is changed."""
    if not uri.startswith("sqlite"):
        return
    file = database_file(uri)
    if not (file.exists() and file.resolve() == store.database.resolve()):
        return
    try:
        with closing(sqlite3.connect(file, timeout=30)) as database, database:
            for old, new in _moved(database, store).items():
                _log.info("the store was moved from %s: MLflow's database follows", old)
                _rename(database, old, new)
    except sqlite3.Error as error:  # such as one without tables, or that may not be written
        _log.debug("%s: %s", file, error)


def _moved(database: sqlite3.Connection, store: Store) -> dict[str, str]:
    """Return the folders of artifacts that the experiments have and that are not the store's, each
    with what it must be."""
    moved = {}
    for name, known in database.execute("SELECT name, artifact_location FROM experiments"):
        here = (store.artifacts / name).as_uri()
        last = here.removeprefix(store.artifacts.as_uri())
        is_ours = urlsplit(known or "").scheme == "file" and known.endswith(f"/artifacts{last}")
        if is_ours and known != here:
            moved[known.removesuffix(last) + "/"] = here.removesuffix(last) + "/"
    return moved


def _rename(database: sqlite3.Connection, old: str, new: str) -> None:
    for table, columns in _PLACES.items():
        known = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
        for column in known.intersection(columns):
            database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # nosec  # constants
                f"WHERE substr({column}, 1, ?) = ?",
                (new, len(old) + 1, len(old), old),
            )
