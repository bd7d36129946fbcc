"""The first commands in a new store: several at once, and killed while tables are made."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from support.journals import open_journal, write_epochs
from support.mlflow_runs import close

from pipelines.catalog.runs import runs
from pipelines.store.layout import Store
from pipelines.tracking.base import tracking_uri
from pipelines.tracking.mlflow.database import HEAD, is_complete
from pipelines.tracking.queue import open_tracker

ROOT = Path(__file__).parents[2]
DELIVER = """
import sys
from pathlib import Path
from pipelines.store.layout import Store
from pipelines.tracking.base import tracking_uri
from pipelines.tracking.queue import open_tracker
store = Store.at(sys.argv[1])
with open_tracker(tracking_uri(store), store) as tracker:
    tracker.sync(store.run(sys.argv[2]).journal)
    sys.exit(0 if tracker.flush(300) else 1)
"""
"""What every command does first that records something."""


def record(store: Store, name: str) -> None:
    journal = open_journal(store.run(name).path)
    write_epochs(journal, 1, 2, pictures=True)
    close(journal, 2)


def start(store: Store, name: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", DELIVER, str(store.root), name]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)


def test_six_first_commands_at_once(tmp_path: Path) -> None:
    store, names = Store.at(tmp_path / "store"), [f"run-{n}" for n in range(6)]
    for name in names:
        record(store, name)
    processes = [start(store, name) for name in names]
    errors = [process.communicate(timeout=500)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * 6, "\n".join(errors)
    assert sorted(row.name for row in runs(store=store.root).runs) == names


def test_killed_while_the_tables_are_made(tmp_path: Path) -> None:
    """Each round kills a first command at a random moment after it began to make the tables."""
    chance = random.Random(0)
    for number in range(10):
        store = Store.at(tmp_path / f"{number}")
        record(store, "a")
        process = start(store, "a")
        aside = store.root / ".mlflow.db.new"
        await_file(process, aside, store.database)
        time.sleep(chance.uniform(0, 1.5))
        kill(process)
        with open_tracker(tracking_uri(store), store) as tracker:
            tracker.sync(store.run("a").journal)
            assert tracker.flush(300)
        assert [row.name for row in runs(store=store.root).runs] == ["a"]


MLFLOW_ALONE = """
import sys
from mlflow import MlflowClient
MlflowClient(sys.argv[1], sys.argv[1]).search_experiments()
"""
"""As earlier versions made the tables: in the database's own file, by MLflow's client."""


def test_what_an_earlier_version_left_half_made_is_made_anew(tmp_path: Path) -> None:
    made_anew = 0
    for number in range(4):
        store = Store.at(tmp_path / f"{number}")
        record(store, "a")
        uri = f"sqlite:///{store.database}"
        process = subprocess.Popen([sys.executable, "-c", MLFLOW_ALONE, uri])
        await_file(process, store.database)
        time.sleep(0.1 * number)
        kill(process)
        whole = is_complete(store.database)
        with open_tracker(tracking_uri(store), store) as tracker:
            tracker.sync(store.run("a").journal)
            assert tracker.flush(300)
        made_anew += not whole and (store.root / "mlflow.db.incomplete").exists()
        assert [row.name for row in runs(store=store.root).runs] == ["a"]
    assert made_anew, "no kill left a half-made database"


def await_file(process: subprocess.Popen[bytes], *paths: Path) -> None:
    """Wait until one of the files holds something, or the process has ended."""
    while process.poll() is None:
        if any(path.exists() and path.stat().st_size for path in paths):
            return
        time.sleep(0.005)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_database_with_runs_is_left_alone(tmp_path: Path, mlflow_database: Path) -> None:
    """Of another version of MLflow: it is not made anew, whatever its revision."""
    from pipelines.tracking.mlflow.database import ensure_database

    path = tmp_path / "mlflow.db"
    path.write_bytes(mlflow_database.read_bytes())
    with closing(sqlite3.connect(path)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(runs)")]
        values = ", ".join("'x'" if name == "run_uuid" else "NULL" for name in columns)
        connection.execute(f"INSERT INTO runs VALUES ({values})")
        connection.execute("UPDATE alembic_version SET version_num = 'older'")
        connection.commit()
    before = path.read_bytes()
    ensure_database(path)
    assert path.read_bytes() == before and HEAD != "older"
