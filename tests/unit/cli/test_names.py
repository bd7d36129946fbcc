"""Names and paths as no one would give them: each works, or is refused by one message, and nothing
is written outside the store."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.journals import open_journal, write_epochs
from support.mlflow_runs import close
from support.pipeline import ROOT, Capture, refused

from gen_models.core.errors import InputError
from pipelines.catalog.runs import runs
from pipelines.cli.main import main
from pipelines.store.layout import Store, require_name
from pipelines.tracking.base import tracking_uri
from pipelines.tracking.queue import open_tracker

LONG = "x" * 5000
NAMES = ["../../x", "a/b", "/etc/x", ".", "..", "a\nb", "a\tb", "\x1b[31mred", LONG, "é" * 150]
LEFT = [
    "x",
    "run.1",
    "sweep 3",
    "größe=4",
    "a:b",
    "100%",
    "what?",
    "#1",
    "[red]",
    "[x",
    "-1",
    "日本",
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_database: Path) -> Path:
    """The working directory, with an empty store `runs` in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    shutil.copy(mlflow_database, tmp_path / "runs" / "mlflow.db")
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_no_folder_of_the_store(name: str, here: Path, capsys: Capture) -> None:
    before = sorted(here.rglob("*"))
    for args in (["train", "vae", "--name"], ["search", "vae", "--resume"]):
        text = refused([*args, name], capsys)
        assert f"{args[-1].strip('-')} = " in text and "because it names a folder" in text
        assert len(text) < 1000
    for make in (Store.at("runs").run, Store.at("runs").search, Store.at("runs").evaluation):
        with pytest.raises(InputError, match="because it names a folder"):
            make(name)
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("name", LEFT)
def test_a_name_that_is_odd_and_right(name: str, here: Path, capsys: Capture) -> None:
    """It is recorded, listed and found."""
    assert require_name("name", name) == name
    store = Store.at("runs")
    journal = open_journal(store.run(name).path)
    write_epochs(journal, 1, pictures=True)
    close(journal, 1)
    with open_tracker(tracking_uri(store), store) as tracker:
        tracker.sync(journal)
        assert tracker.flush(60)
    assert [run.name for run in runs(store="runs").runs] == [name]
    assert main(["runs"]) == 0
    assert name in capsys.readouterr().out


PATHS = {
    "store": ["train", "vae", "--store", LONG],
    "store, to read": ["runs", "--store", LONG],
    "store of long parts": ["runs", "--store", "/".join(["x" * 200] * 30)],
    "store with ?": ["train", "vae", "--store", "a?b"],
    "store with %": ["train", "vae", "--store", "a%20b"],
    "uri with ?": ["train", "vae", "--tracking-uri", "sqlite:///a?b"],
    "uri with %": ["runs", "--tracking-uri", "sqlite:///a%3Fb"],
    "uri": ["runs", "--tracking-uri", f"sqlite:///{LONG}"],
    "no scheme": ["runs", "--tracking-uri", LONG],
    "model": ["sample", LONG],
    "model of quotes": ["sample", "a'b\"c"],
    "model up": ["sample", "../../x"],
    "version": ["sample", f"models:/{LONG}/1"],
    "alias": ["sample", f"{LONG}@champion"],
    "out": ["sample", "x", "--out", f"{LONG}.png"],
    "evaluated": ["evaluate", LONG],
    "confirmed": ["confirm", LONG],
    "experiment": ["runs", "--experiment", LONG],
    "best of data": ["best", "vae", "--data", LONG],
    "best by metric": ["best", "vae", "--metric", LONG],
    "family": ["train", LONG],
    "command": [LONG],
    "data": ["train", "vae", "--data", LONG],
    "data folder": ["train", "vae", "--data", f"folder:{LONG}"],
    "data archive": ["train", "vae", "--data", f"npz:{LONG}"],
    "data root": ["train", "vae", "--data", "mnist", "--data-root", LONG],
    "working directory": ["submit", "--working-dir", LONG, "--", "train", "vae"],
    "sync": ["sync", "--store", LONG],
    "browse": ["browse", "--store", LONG],
}


@pytest.mark.parametrize("case", PATHS)
def test_a_path_that_cannot_be(case: str, here: Path, capsys: Capture) -> None:
    before = sorted(here.rglob("*"))
    text = refused(PATHS[case], capsys)
    assert len(text) < 4000
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("name", ["sp ace", "größe-日本", "#a;b&c'd\"e[x]"])
def test_a_store_of_an_odd_name(name: str, here: Path) -> None:
    """Printed by a process whose terminal knows ASCII only."""
    store = Store.at(name)
    shutil.copytree("runs", name)
    journal = open_journal(store.run(f"run {name}").path)
    write_epochs(journal, 1, 2, pictures=True)
    close(journal, 2, artifacts={"journal": str(journal.folder)})
    environment = {
        **os.environ,
        "PYTHONIOENCODING": "ascii",
        "LC_ALL": "C",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "pipelines", "runs", "--store", name, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and done.stdout.isascii()
    (run,) = runs(store=name).runs
    assert run.name == f"run {name}" and run.epoch == 2
    artifacts = sorted(path.name for path in store.artifacts.glob("*/*/artifacts/*"))
    assert artifacts == ["images", "journal"]
    assert sorted(path.name for path in here.iterdir()) == sorted({name, "runs"})
