"""Names in a store: they are a format, which versions and people rely on."""

from pathlib import Path

import pytest
from support.files import MemoryFiles
from support.journals import open_journal, write_run

from pipelines.store.files import LOCAL, Files
from pipelines.store.journal import Outcome
from pipelines.store.layout import RunFolder, SearchFolder, Store

ROOT = Path("/r")


def test_the_names_of_everything() -> None:
    store = Store(ROOT)
    assert store.database == ROOT / "mlflow.db"
    assert store.artifacts == ROOT / "artifacts"
    assert store.features == ROOT / "features"
    run = store.run("a")
    assert (run.path, run.name) == (ROOT / "runs/a", "a")
    assert run.config == ROOT / "runs/a/config.json"
    assert run.samples == ROOT / "runs/a/samples.png"
    assert run.journal.folder == ROOT / "runs/a/journal"
    search = store.search("vae-1")
    assert search.path == ROOT / "searches/vae-1"
    assert search.tune == ROOT / "searches/vae-1/tune"
    assert search.table == ROOT / "searches/vae-1/trials.csv"
    assert search.report == ROOT / "searches/vae-1/report.html"
    assert search.champion_samples == ROOT / "searches/vae-1/champion.png"
    assert search.trial("t0").path == ROOT / "searches/vae-1/trials/t0"
    assert search.study("t0", 5).path == ROOT / "searches/vae-1-t0-5-seeds"
    evaluation = store.evaluation("abc")
    assert evaluation.record_file == ROOT / "evaluations/abc/evaluation.json"


def test_a_store_s_path_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert Store.at("runs").root == tmp_path / "runs"
    assert Store.at("~/runs").root == tmp_path / "home/runs"
    assert SearchFolder.at("x").path == Path("x")


@pytest.fixture(params=["disk", "memory"])
def files(request: pytest.FixtureRequest) -> Files:
    return LOCAL if request.param == "disk" else MemoryFiles()


def test_what_a_store_holds_is_found(files: Files, tmp_path: Path) -> None:
    store = Store(tmp_path, files)
    assert store.search_ids() == [] == store.evaluations() == store.ended_journals()
    files.write(store.search("new").config, "{}")
    files.write(store.search("both").config, "{}")
    files.write(store.search("both").legacy_config, "{}")
    files.write(store.search("old").legacy_config, "{}")
    files.write(store.searches / "unstarted/tune/x", "")
    assert store.search_ids() == ["both", "new", "old"]

    open_journal(store.run("going-on").path, files)
    open_journal(store.search("new").path, files).close(Outcome("completed", 0))
    write_run(store.run("a").path, [-1.0], files=files)
    write_run(store.search("new").trial("t0").path, [-1.0], files=files)
    ended = [str(journal.run_folder.relative_to(tmp_path)) for journal in store.ended_journals()]
    assert sorted(ended) == ["runs/a", "searches/new", "searches/new/trials/t0"]
    assert all(journal.outcome() for journal in store.ended_journals())

    store.evaluation("x").write("x", {}, {}, {})
    (evaluation,) = store.evaluations()
    assert evaluation.folder == tmp_path / "evaluations/x" and evaluation.record()


def test_folders_are_equal_by_their_path() -> None:
    assert RunFolder(ROOT) == RunFolder(ROOT, MemoryFiles())
    assert RunFolder(ROOT / "a") != RunFolder(ROOT / "b")
