"""A store that version 0.1 wrote is listed, sampled, evaluated and resumed."""

import json
import shutil
import sqlite3
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.pipeline import ROOT, Capture, check_recorded, client, run_here, train_alone

from pipelines.cli.main import main
from pipelines.cli.parsing import parse_run
from pipelines.config.run import Train
from pipelines.config.search import Search
from pipelines.config.serialization import load_config
from pipelines.store.layout import Store

pytestmark = [pytest.mark.slow, pytest.mark.long]
ARCHIVE = ROOT / "tests" / "data" / "store-0.1" / "store.tar.xz"
WRITTEN_AT = "/store/runs"
"""Where the store was written: absolute paths in it begin so."""
SETTINGS = [
    *("--model.arch", "mlp", "--model.hidden", "16"),
    *("--batch-size", "256", "--precision", "fp32"),
]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "runs"


@pytest.fixture
def store(unpacked: Path, tmp_path: Path) -> Path:
    """A copy of the store, with the paths that it would have if it had been written there."""
    place = shutil.copytree(unpacked, tmp_path / "runs")
    for path in place.rglob("*"):
        is_text = path.suffix == ".json" or path.name == "MLmodel"
        if is_text and "tune" not in path.parts:  # Tune finds its files by itself
            path.write_text(path.read_text().replace(WRITTEN_AT, str(place)))
    database = sqlite3.connect(place / "mlflow.db")
    for table, column in _text_columns(database):
        change = f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?)'
        database.execute(f"{change} WHERE \"{column}\" LIKE '%{WRITTEN_AT}%'", _paths(place))
    database.commit()
    database.close()
    return place


def _text_columns(database: sqlite3.Connection) -> list[tuple[str, str]]:
    tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return [
        (table, column)
        for (table,) in tables
        for _, column, kind, *_ in database.execute(f'PRAGMA table_info("{table}")').fetchall()
        if kind.startswith(("VARCHAR", "TEXT"))
    ]


def _paths(place: Path) -> tuple[str, str]:
    return WRITTEN_AT, str(place)


def interrupted_search(store: Path) -> str:
    """Return the id of the search that was interrupted."""
    outcomes = {
        path.parents[1].name: json.loads(path.read_text())["ending"]
        for path in store.glob("searches/*/journal/outcome.json")
    }
    (search_id,) = (name for name, ending in outcomes.items() if ending == "interrupted")
    return search_id


def test_it_holds_what_version_0_1_wrote(unpacked: Path) -> None:
    assert (
        not list(unpacked.rglob("config.json")) and len(list(unpacked.rglob("search.json"))) == 2
    )
    assert ARCHIVE.stat().st_size < 2 * 2**20


def test_its_runs_are_listed_and_ranked(store: Path, capsys: Capture) -> None:
    result, _ = run_here(["runs", "--store", str(store)], capsys)
    kinds = sorted(row["kind"] for row in result["runs"])
    assert kinds == ["run", "search", "search", "trial", "trial", "trial", "trial"]
    named = {row["name"]: row for row in result["runs"]}
    assert named["old-run"]["outcome"] == "completed" and named["old-run"]["epoch"] == 2
    assert named[interrupted_search(store)]["status"] == "KILLED"
    best, _ = run_here(["best", "vae", "--store", str(store)], capsys)
    values = [row["value"] for row in best["ranking"]]
    assert len(values) == 5 and values == sorted(values)
    assert parse_run(Train, "train", best["rerun"].split()[2:])  # it still is a command


def test_listing_delivers_nothing_again(store: Path, capsys: Capture) -> None:
    """What version 0.1 delivered counts as delivered."""
    before = (store / "mlflow.db").stat().st_mtime_ns
    run_here(["runs", "--store", str(store)], capsys)
    assert (store / "mlflow.db").stat().st_mtime_ns == before


@pytest.mark.parametrize("model", ["vae-digits@champion", "models:/vae-digits/1", "old-run"])
def test_its_models_are_sampled(model: str, store: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "samples.npz"
    run_here(["sample", model, "--store", str(store), "--num", "6", "--out", str(out)], capsys)
    images = np.load(out)["images"]
    assert images.shape == (6, 8, 8, 1) and images.std() > 10


def test_its_configs_are_read(store: Path, capsys: Capture) -> None:
    args = ["confirm", "old-run", "--store", str(store), "--seeds", "3", "--dry-run", "--json"]
    assert main(args) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert content["model"]["latent_dim"] == 4 and content["model"]["hidden"] == [16]
    assert (content["epochs"], content["batch_size"], content["trials"]) == (2, 256, 3)
    assert content["seed_study"]["name"] == "old-run"
    folder = Store.at(store).search(interrupted_search(store))
    search = load_config(folder.legacy_config.read_bytes(), "search.json")
    assert isinstance(search, Search) and (search.trials, search.epochs) == (3, 8)


def test_its_results_are_those_of_this_version(store: Path) -> None:
    run = client(store).search_runs(["1"], "attributes.run_name = 'old-run'")[0]
    config = parse_run(Train, "train", run.data.tags["rerun"].split()[2:])
    assert config
    value = run.data.metrics["best/val/nll/iw8"]
    assert train_alone(config, store)["val/nll/iw8"] == pytest.approx(value, rel=1e-4)


def test_its_runs_are_evaluated(store: Path, capsys: Capture) -> None:
    few = ["--num", "300", "--importance-samples", "5", "--images", "5", "--features", "pca"]
    result, _ = run_here(["evaluate", "old-run", "--store", str(store), *few], capsys)
    assert result["metrics"]["test/fd/pca-digits/300"] > 0
    recorded = client(store).get_run(result["run_id"]).data.metrics
    assert result["metrics"].items() <= recorded.items()


def test_a_complete_run_is_complete(store: Path, capsys: Capture) -> None:
    args = ["train", "vae", "--epochs", "2", "--name", "old-run", "--model.latent-dim", "4"]
    result, log = run_here([*args, *SETTINGS, "--store", str(store)], capsys)
    assert "complete already" in log and result["outcome"] == "completed"
    assert main([*args[:5], "old-run", "--store", str(store)]) == 2
    assert "name = 'old-run': expected a new name" in capsys.readouterr().err


def test_its_interrupted_search_is_resumed(store: Path, capsys: Capture) -> None:
    search_id = interrupted_search(store)
    result, _ = run_here(["search", "vae", "--store", str(store), "--resume", search_id], capsys)
    assert result["search_id"] == search_id and result["outcome"] == "completed"
    assert [trial["outcome"] for trial in result["ranking"]] == ["completed"] * 3
    assert {trial["epochs"] for trial in result["ranking"]} == {8}
    check_recorded(store, result)
    folder = Store.at(store).search(search_id)
    assert isinstance(load_config(folder.config.read_bytes(), "config.json"), Search)
    (first,) = store.glob(f"searches/{search_id}/trials/*_00000")
    assert first.name in {trial["trial_id"] for trial in result["ranking"]}
