"""The best epoch of a run, and the summary of one that ends."""

from pathlib import Path

import pytest
from support.journals import ELBO_MAX, FD, METRIC, read_run, write_run

from pipelines.analysis.best_epoch import best_epoch, epoch_costs, summarise_run
from pipelines.config.objectives import Objective
from pipelines.store.journal import EpochContext

ELBO_MIN = Objective(METRIC, "min")


def test_the_best_epoch_is_one_that_counts_and_has_its_checkpoint(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "run", [-5.0, -1.0, -4.0, -0.5], [1, 3, 4], "stopped_early", last_epoch=3
    )
    record = read_run(folder)
    assert (best := best_epoch(record, ELBO_MAX))
    assert (best.epoch, best.value, best.metrics) == (3, -4.0, {METRIC: -4.0})
    assert best.checkpoint == tmp_path / "run/checkpoint_000003"
    assert (best := best_epoch(record, ELBO_MIN)) and best.epoch == 1
    assert best_epoch(record, Objective("val/other", "max")) is None


def test_of_equal_epochs_the_first_is_the_best(tmp_path: Path) -> None:
    record = read_run(write_run(tmp_path, [-2.0, -1.0, -1.0, -2.0]))
    assert (best := best_epoch(record, ELBO_MAX)) and best.epoch == 2
    assert (best := best_epoch(record, ELBO_MIN)) and best.epoch == 1


@pytest.mark.parametrize("status", ["completed", "stopped_early", "interrupted", "failed"])
def test_every_other_status_has_one(status: str, tmp_path: Path) -> None:
    record = read_run(write_run(tmp_path, [-2.0, -1.0], status=status))  # type: ignore[arg-type]
    assert (best := best_epoch(record, ELBO_MAX)) and best.epoch == 2


def test_a_run_that_diverged_has_none(tmp_path: Path) -> None:
    assert best_epoch(read_run(write_run(tmp_path, [-2.0], status="diverged")), ELBO_MAX) is None


def test_a_run_without_a_checkpoint_has_none(tmp_path: Path) -> None:
    assert best_epoch(read_run(write_run(tmp_path, [-2.0], saved=[])), ELBO_MAX) is None
    assert best_epoch(read_run(tmp_path / "unknown"), ELBO_MAX) is None


def test_a_run_that_goes_on_has_one(tmp_path: Path) -> None:
    record = read_run(write_run(tmp_path, [-2.0, -3.0], saved=[2], status=None))
    assert (best := best_epoch(record, ELBO_MAX)) and best.epoch == 2


def test_costs_are_of_epochs_that_count_and_have_a_value(tmp_path: Path) -> None:
    epochs = [{METRIC: -3.0}, {FD: 1.0}, {METRIC: -1.0, FD: 2.0}, {METRIC: 0.0}]
    record = read_run(write_run(tmp_path, epochs, last_epoch=3))
    assert epoch_costs(record, ELBO_MAX) == {1: 3.0, 3: 1.0}
    assert epoch_costs(record, Objective(FD, "min")) == {2: 1.0, 3: 2.0}


def test_the_summary_holds_the_validation_metrics_of_the_best_epoch(tmp_path: Path) -> None:
    epochs = [{METRIC: -1.0, FD: 2.0, "train/loss": 9.0}, {METRIC: -2.0}, {METRIC: -0.5}]
    record = read_run(write_run(tmp_path, epochs, status=None))
    outcome = summarise_run(record, ELBO_MAX, "stopped_early", 2, "why")
    assert (outcome.ending, outcome.last_epoch) == ("stopped_early", 2)
    assert outcome.summary == {"best/epoch": 1, f"best/{METRIC}": -1.0, f"best/{FD}": 2.0}
    assert outcome.tags == {"message": "why", "best_epoch": "1", "checkpoint": "checkpoint_000001"}
    assert not outcome.checkpoint and not outcome.register and not outcome.champion


def test_the_summary_of_a_run_that_diverged_is_empty(tmp_path: Path) -> None:
    record = read_run(write_run(tmp_path, [-1.0], status=None))
    outcome = summarise_run(record, ELBO_MAX, "diverged", 1)
    assert (outcome.ending, outcome.summary, outcome.tags) == ("diverged", {}, {})
    lost = EpochContext(divergence="train/loss is nan")
    record.folder.journal.write_epoch(2, {FD: 1.0}, {}, lost)
    outcome = summarise_run(read_run(record.folder), ELBO_MAX, "diverged", 2)
    assert outcome.tags["message"] == "train/loss is nan in epoch 2"
