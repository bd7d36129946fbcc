"""How trials are ranked, from journals as runs leave them."""

import csv
import io
from pathlib import Path

import pytest

from pipelines.journal import Ending, Identity, Journal, Outcome, checkpoint_name
from pipelines.ranking import as_csv, standings
from pipelines.results import best_of

METRIC = "val/elbo"


def make_run(
    folder: Path, values: list[float], kept: list[int], ending: Ending, last: int | None = None
) -> None:
    """A trial that reported `values` at its epochs and still has the checkpoints `kept`."""
    journal = Journal(folder)
    journal.open(
        Identity(
            folder.name, "vae-digits", "trial", trial_id=folder.name, params={"optim.lr": 0.1}
        )
    )
    for epoch, value in enumerate(values, 1):
        journal.report(epoch, {METRIC: value}, {})
    for epoch in kept:
        checkpoint = folder / checkpoint_name(epoch)
        checkpoint.mkdir()
        (checkpoint / "model.json").write_text("{}")
    journal.close(Outcome(ending, len(values) if last is None else last))


@pytest.fixture
def search(tmp_path: Path) -> Path:
    trials = tmp_path / "trials"
    make_run(trials / "good", [-3.0, -1.0, -2.0], [2, 3], "completed")
    make_run(trials / "wild", [-0.1, -0.2], [1], "diverged")
    make_run(trials / "poor", [-9.0], [1], "stopped_early")
    make_run(trials / "dead", [], [], "failed", last=0)
    Journal(trials / "open").open(Identity("open", "vae-digits", "trial", trial_id="open"))
    return tmp_path


def test_the_best_epoch_is_one_that_counts_and_has_its_checkpoint(tmp_path: Path) -> None:
    make_run(tmp_path / "run", [-5.0, -1.0, -4.0, -0.5], [1, 3, 4], "stopped_early", last=3)
    assert (found := best_of(tmp_path / "run", METRIC, "max", last_epoch=3))
    assert (found.epoch, found.value) == (3, -4.0)
    assert (found := best_of(tmp_path / "run", METRIC, "min"))
    assert found.epoch == 1
    assert best_of(tmp_path / "run", "val/other", "max") is None


def test_diverged_and_dead_trials_are_last_and_running_ones_absent(search: Path) -> None:
    order = [s.trial_id for s in standings(search, METRIC, "max", ["optim.lr"])]
    assert order[:2] == ["good", "poor"] and set(order[2:]) == {"wild", "dead"}
    order = [s.trial_id for s in standings(search, METRIC, "min", ["optim.lr"])]
    assert order[:2] == ["poor", "good"]


def test_the_table_has_a_line_a_trial(search: Path) -> None:
    rows = list(
        csv.DictReader(io.StringIO(as_csv(standings(search, METRIC, "max", ["optim.lr"]), METRIC)))
    )
    assert rows[0]["trial_id"] == "good" and float(rows[0][METRIC]) == -1.0
    assert rows[0]["optim.lr"] == "0.1" and rows[0]["best_epoch"] == "2"
    assert len(rows) == 4 and rows[-1][METRIC] == ""
