"""`genpipe confirm` of recorded runs, up to the start of Ray."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import ray
from support.pipeline import Capture, refused

from pipelines.cli.main import main
from pipelines.cli.parsing import parse_run
from pipelines.config.run import Train
from pipelines.config.serialization import dump_config
from pipelines.data import Dataset, load
from pipelines.store.journal import Outcome, RunKind
from pipelines.store.layout import Store
from pipelines.tracking.base import tracking_uri
from pipelines.tracking.queue import open_tracker
from pipelines.training.run_info import run_info

ARGS = [
    "vae",
    "--data",
    "npz:x.npz",
    "--batch-size",
    "8",
    "--precision",
    "fp32",
    "--metric",
    "val/nll/iw8",
]
KINDS: dict[str, RunKind] = {"mine": "run", "whole": "search", "by-pbt": "trial"}


@dataclass(frozen=True)
class Recorded:
    """A folder with a data set and a store `runs`."""

    folder: Path
    dataset: Dataset


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A run, a search and a trial of population based training, in MLflow as if trained."""
    folder = tmp_path_factory.mktemp("recorded")
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)
    np.savez(folder / "x.npz", images=images)
    dataset = load(f"npz:{folder / 'x.npz'}", Path())
    store = Store.at(folder / "runs")
    run = parse_run(Train, "train", ARGS)
    assert run
    uri = tracking_uri(store)
    with open_tracker(uri, store) as tracker:
        for name, kind in KINDS.items():
            place = store.run(name)
            info = run_info(run, dataset, kind=kind, name=name, experiment="vae-x")
            place.files.write(place.config, dump_config(run))
            place.journal.open(info)
            changed = {"config/optim.lr": 0.1} if "pbt" in name else {}
            place.journal.write_epoch(1, {"val/nll/iw8": -1.0, "diverged": 0.0, **changed}, {})
            place.journal.close(Outcome("completed", 1, {"best/val/nll/iw8": -1.0}))
            tracker.sync(place.journal)
        assert tracker.flush(60)
    return Recorded(folder, dataset)


@pytest.fixture(autouse=True)
def here(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(recorded.folder)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield
    assert not ray.is_initialized()
    assert not Path("runs/searches").exists()


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["yours"], "run = 'yours': expected a run's id or name"),
        (["whole"], "run = 'whole': expected a run or a trial, and not a search"),
        (["by-pbt"], "run = 'by-pbt': expected a run with one config"),
        (["mine", "--resume", "x"], "resume = 'x': expected a search of"),
    ],
)
def test_what_cannot_be_confirmed_is_named(
    args: list[str], expected: str, capsys: Capture
) -> None:
    assert expected in refused(["confirm", *args], capsys)


def test_a_dry_run_shows_the_study(recorded: Recorded, capsys: Capture) -> None:
    assert main(["confirm", "mine", "--seeds", "3", "--dry-run", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["trials"] == 3
    assert content["searched"] == {"seed": "choice([1, 2, 3])"}
    study = content["seed_study"]
    assert study["name"] == "mine" and study["data_digest"] == recorded.dataset.digest
    assert study["value"] == -1.0
    assert content["command"] == f"genpipe confirm {study['run']} --seeds 3"


def test_data_that_changed_are_refused(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "runs").symlink_to(recorded.folder / "runs")
    images = np.load("x.npz")["images"]
    np.savez(tmp_path / "x.npz", images=255 - images)
    monkeypatch.chdir(tmp_path)
    message = refused(["confirm", "mine"], capsys)
    assert "data = 'npz:x.npz': expected the data set that mine was trained on" in message
    assert recorded.dataset.digest in message
