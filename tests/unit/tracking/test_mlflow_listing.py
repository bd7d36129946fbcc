"""What is listed without MLflow is what MLflow's client answers, and quickly."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.journals import open_journal, write_epochs
from support.mlflow_runs import close, deliver

from gen_models.core.errors import InputError
from pipelines.store.layout import Store
from pipelines.store.lease import holding
from pipelines.tracking.base import RunRow
from pipelines.tracking.mlflow import BACKEND
from pipelines.tracking.mlflow.connection import connect
from pipelines.tracking.mlflow.listing import FileReader
from pipelines.tracking.mlflow.reader import MlflowReader

ROOT = Path(__file__).parents[3]


@pytest.fixture
def recorded(uri: str, store: Store) -> dict[str, str]:
    """Runs of two experiments, one going on, one deleted, and one of another program: ids."""
    ids = {}
    kinds = (("a", "vae-x", "vae"), ("b", "gan-x", "gan"), ("gone", "y", "vae"))
    for name, experiment, family in kinds:
        folder, key = store.run(name).path, f"{family} val/elbo"
        tags = {"family": family, "metric": "val/elbo", "comparable": key}
        journal = open_journal(folder, experiment=experiment, tags=tags)
        write_epochs(journal, 1, 2)
        if name != "b":
            close(journal, 2, summary={"best/epoch": 1.0}, tags={"message": 'it\'s "quoted" ü'})
        ids[name] = deliver(uri, store, journal)
    client = connect(uri)
    other = client.create_run(client.create_experiment("other"))
    client.log_metric(other.info.run_id, "nothing", float("nan"))
    client.log_metric(other.info.run_id, "infinite", float("inf"))
    client.delete_run(ids["gone"])
    deleted = client.create_experiment("deleted")
    client.create_run(deleted)
    client.delete_experiment(deleted)
    return ids


def without_nan(rows: list[RunRow]) -> list[RunRow]:
    return [replace(r, metrics={k: repr(v) for k, v in r.metrics.items()}) for r in rows]  # type: ignore[misc]


def test_the_same_as_mlflow_s_client(uri: str, store: Store, recorded: dict[str, str]) -> None:
    light, client = BACKEND.reader(uri, store), MlflowReader(uri, store)
    assert isinstance(light, FileReader)
    assert {row.name for row in light.list_runs()} > {"a", "b"}
    for arguments in ((), ("vae-x",), (None, {"family": "gan"}), ("vae-x", {"family": "gan"})):
        expected = client.list_runs(*arguments)  # type: ignore[arg-type]
        assert without_nan(light.list_runs(*arguments)) == without_nan(expected)  # type: ignore[arg-type]
    for name in ("nothing", "deleted"):
        with pytest.raises(InputError, match=f"experiment = '{name}': expected one of Default"):
            light.list_runs(name)
    for run_id, held in ((recorded["a"], True), (recorded["gone"], True), ("0" * 32, False)):
        assert light.holds(run_id) == client.holds(run_id) == held
    assert light.run("a") == client.run(recorded["a"])


def test_neither_mlflow_nor_torch_is_imported(store: Store, recorded: dict[str, str]) -> None:
    """Their imports take seconds, and a list of runs needs none of them."""
    code = (
        "import sys; from pipelines.cli.main import main; "
        "assert main(sys.argv[1:]) == 0; "
        "names = ('mlflow', 'torch', 'ray', 'sqlalchemy', 'pandas'); "
        "print([name for name in names if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, "runs", "--store", str(store.root)]
    with holding(store.run("b"), "name"):  # it goes on: nothing is to be delivered
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
