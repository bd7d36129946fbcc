"""Several commands that deliver the same journals at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from support.journals import open_journal, write_epochs
from support.mlflow_runs import close, pictures, steps

from pipelines.store.layout import Store
from pipelines.tracking.mlflow.reader import MlflowReader

ROOT = Path(__file__).parents[2]


def test_three_commands_at_once_deliver_everything_once(
    tmp_path: Path, mlflow_database: Path
) -> None:
    store = Store.at(tmp_path)
    shutil.copy(mlflow_database, store.database)
    search = open_journal(store.search("s").path, kind="search", search_id="s")
    close(search, 0)
    for number in range(8):
        folder = store.search("s").trial(f"t{number}").path
        journal = open_journal(folder, kind="trial", search_id="s", parent="../..")
        write_epochs(journal, *range(1, 11), pictures=True)
        close(journal, 10)
    command = [sys.executable, "-m", "pipelines", "runs", "--store", str(store.root)]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    errors = [process.communicate(timeout=300)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, errors
    assert not any("does not take" in text for text in errors), errors
    uri = f"sqlite:///{store.database}"
    rows = MlflowReader(uri, store).list_runs()
    assert sorted(row.name for row in rows) == ["s", *(f"t{number}" for number in range(8))]
    for row in rows:
        epochs = list(range(1, 11)) if row.kind == "trial" else []
        assert steps(uri, row.run_id) == steps(uri, row.run_id, "system/epoch") == epochs
        assert len(pictures(uri, row.run_id)) == 2 * len(epochs)  # each with its thumbnail
