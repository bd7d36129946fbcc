"""MLflow's database in a file: it comes into being whole, whoever is first and whatever dies.

MLflow creates a database's tables by one migration after the other. Two processes that do so at
once, or one that is killed meanwhile, leave a file that MLflow refuses for good ("table already
exists"). So the tables are made in a file beside it, under a lock, and the file is renamed when it
is complete. What an earlier version, or a program without the lock, left half made holds no run
yet: it is set aside and made anew.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock, Timeout

from gen_models.core.errors import InputError

HEAD = "dc11669786a5"
"""Alembic revision of the tables of the MLflow version that this project requires. A database of
this revision is complete, which is found without importing MLflow."""

_LOCK_SECONDS = 600.0
"""How long a process waits for another that makes the tables: seconds, minutes on a busy node."""
_IN_USE = {
    "runs": "SELECT 1 FROM runs LIMIT 1",
    "registered_models": "SELECT 1 FROM registered_models LIMIT 1",
}
"""By table, what finds a row if somebody has used the database."""
_BUSY_SECONDS = 60.0
_COMPANIONS = ("-journal", "-wal", "-shm")
"""Files that SQLite keeps beside a database while it is written."""
_log = logging.getLogger(__name__)


def is_complete(path: Path) -> bool:
    """Return whether a SQLite file has all of MLflow's tables.

    Raises `sqlite3.DatabaseError` if the file is no SQLite database.
    """
    return path.exists() and _revision(path) == HEAD


def ensure_database(path: Path) -> None:
    """Create MLflow's tables in the SQLite file `path`, unless it has them.

    Another process that does so is waited for. A file without a run whose tables are half made is
    replaced; one with runs is left to MLflow, which says how to migrate it. Raises `InputError` if
    another process takes longer than ten minutes, and what SQLite and MLflow raise.
    """
    if is_complete(path):
        return
    with one_maker(path):
        if is_complete(path):  # by the process that was waited for
            return
        if not path.exists():
            make_whole(path, _make_tables)
        elif _is_half_made(path):
            make_whole(path, _make_tables, replace=_set_aside)


@contextmanager
def one_maker(path: Path) -> Iterator[None]:
    """Hold, for the block, the right to make the file `path`, as one process at a time may. Raises
    `InputError` if another holds it for ten minutes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=_LOCK_SECONDS):
            yield
    except Timeout as error:
        expected = "expected a database that is not being created by another process"
        raise InputError(f"{path}: {expected} for {_LOCK_SECONDS:.0f} s") from error


def make_whole(
    path: Path, make: Callable[[Path], None], replace: Callable[[Path], None] | None = None
) -> None:
    """Have `make` write a SQLite file beside `path`, and rename it; before that `replace` takes
    away the file that is there."""
    aside = path.with_name(f".{path.name}.new")
    _remove(aside)  # a process that was killed left it
    make(aside)
    if replace:
        replace(path)
    _sync(aside)
    aside.rename(path)
    _sync(path.parent)


def _make_tables(path: Path) -> None:
    import sqlalchemy  # light: of a new database only
    from mlflow.store.db.utils import _initialize_tables  # light: of a new database only

    engine = sqlalchemy.create_engine(sqlalchemy.URL.create("sqlite", database=str(path)))
    _initialize_tables(engine)  # type: ignore[no-untyped-call]
    engine.dispose()


def _is_half_made(path: Path) -> bool:
    """Return whether a file's tables are incomplete, and hold no run. Waits while another program
    writes to it."""
    with closing(sqlite3.connect(path, _BUSY_SECONDS, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = {name for (name,) in found}
        ours = not tables or bool(tables & {"alembic_version", "experiments", "runs"})
        queries = [query for table, query in _IN_USE.items() if table in tables]
        in_use = any(connection.execute(query).fetchone() for query in queries)
        connection.execute("ROLLBACK")
    return ours and not in_use and _revision(path) != _head()


def _head() -> str:
    """Return the revision of the installed MLflow's tables."""
    from mlflow.store.db.utils import (  # light: of a new database only
        _get_latest_schema_revision,
    )

    return str(_get_latest_schema_revision())  # type: ignore[no-untyped-call]


def _revision(path: Path) -> str | None:
    """Return the revision of a file's tables; None if they have none yet."""
    # Not read-only, because a journal that a killed process left has to be rolled back first.
    uri = f"file:{quote(str(path))}?mode=rw"
    with closing(sqlite3.connect(uri, _BUSY_SECONDS, uri=True)) as connection:
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return None
            raise
    return str(row[0]) if row else None


def _set_aside(path: Path) -> None:
    """Rename a half-made database with the files that SQLite keeps beside it: a journal that
    stayed would be rolled back into the new one."""
    kept = path.with_name(f"{path.name}.incomplete")
    _remove(kept)
    for ending in (*_COMPANIONS, ""):
        part = path.with_name(path.name + ending)
        if part.exists():
            part.rename(kept.with_name(kept.name + ending))
    _log.warning("%s was half made and held no run: made anew (the old file is %s)", path, kept)


def _remove(path: Path) -> None:
    for ending in ("", *_COMPANIONS):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Have the file system write a file, or a folder's list of names, to the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
