"""MLflow's database comes into being whole."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipelines.tracking.mlflow import database
from pipelines.tracking.mlflow.database import HEAD, ensure_database, is_complete


def test_the_known_revision_is_that_of_the_installed_mlflow() -> None:
    assert database._head() == HEAD


def test_a_new_database_is_complete_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "mlflow.db"
    ensure_database(path)
    assert is_complete(path)
    assert sorted(p.name for p in path.parent.iterdir()) == [".mlflow.db.lock", "mlflow.db"]
    before = path.read_bytes()
    ensure_database(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("tables", [(), ("experiments",), ("alembic_version", "runs")])
def test_a_half_made_database_is_replaced(tmp_path: Path, tables: tuple[str, ...]) -> None:
    path = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(path)) as connection:
        for table in tables:
            connection.execute(f"CREATE TABLE {table} (version_num TEXT)")
        connection.commit()
    assert not is_complete(path)
    ensure_database(path)
    assert is_complete(path) and (tmp_path / "mlflow.db.incomplete").exists()


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE people (name TEXT)")
        connection.commit()
    before = path.read_bytes()
    ensure_database(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("no database " * 100)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        ensure_database(path)
