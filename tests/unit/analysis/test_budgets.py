"""When a search ends before all its trials have: the spread, the plateau, budgets of time."""

import os
from pathlib import Path
from statistics import stdev
from typing import Any

import pytest
from support.journals import ELBO_MAX, METRIC, read_trials, write_run

from pipelines.analysis.budgets import Plateau, exhausted, recorded_plateau, spread
from pipelines.config.objectives import Objective
from pipelines.config.search import Search
from pipelines.config.serialization import make_config
from pipelines.store.usage import Usage

SMALL = Objective("val/x", "min")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], 0.0),
        ([3.0], 0.0),
        ([3.0, 5.0], 2.0**0.5),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 2.5**0.5),
        ([100.0, -50.0, 1.0, 2.0, 3.0, 4.0, 5.0], 2.5**0.5),  # the last five epochs alone
        ([7.0] * 9, 0.0),
    ],
)
def test_the_spread_of_a_metric(values: list[float], expected: float) -> None:
    assert spread(values) == pytest.approx(expected, rel=1e-12)


def test_trials_since_the_best_value_has_improved_by_more_than_its_spread() -> None:
    plateau = Plateau(SMALL)
    plateau.add([])  # it diverged before there was any value
    assert (plateau.best, plateau.trials) == (None, 0) and not plateau.is_flat(1)
    plateau.add([14.0, 10.0, 12.0])
    assert (plateau.best, plateau.trials) == (10.0, 0)
    assert plateau.spread == stdev([14.0, 10.0, 12.0]) == 2.0
    plateau.add([11.0])  # worse
    plateau.add([8.5])  # better, by less than the spread: the value to improve stays
    plateau.add([])  # it diverged
    assert (plateau.best, plateau.trials) == (10.0, 3)
    plateau.add([8.0])  # by the spread, and not by more
    assert plateau.trials == 4 and plateau.is_flat(4) and not plateau.is_flat(5)
    plateau.add([7.5, 9.0])
    assert (plateau.best, plateau.trials) == (7.5, 0)
    assert plateau.spread == stdev([7.5, 9.0])


def test_of_a_metric_that_should_be_large_the_largest_value_is_the_best() -> None:
    plateau = Plateau(ELBO_MAX)
    plateau.add([-20.0, -10.0, -12.0])
    assert plateau.best == -10.0
    plateau.add([-9.5])
    assert plateau.trials == 1
    plateau.add([-1.0])
    assert (plateau.best, plateau.trials) == (-1.0, 0)


def test_a_running_trial_that_has_improved_the_best_value_keeps_the_search_going() -> None:
    plateau = Plateau(SMALL)
    plateau.add([10.0, 12.0])
    plateau.add([11.0])
    assert plateau.is_flat(1) and plateau.is_flat(1, 9.0)
    assert not plateau.is_flat(1, 8.0)


def test_recorded_trials_are_taken_in_the_order_in_which_they_ended(tmp_path: Path) -> None:
    """By the time of their last epochs: outcomes are written again at the end of a search."""
    order: list[tuple[str, list[float], Any]] = [
        ("c", [-10.0, -9.0], "completed"),
        ("a", [-20.0], "stopped_early"),
        ("d", [-30.0], "failed"),  # says nothing of its config
        ("b", [-30.0], "diverged"),
        ("e", [-1.0], "interrupted"),  # goes on later
    ]
    for number, (name, values, ending) in enumerate(order):
        folder = write_run(tmp_path / "trials" / name, values, status=ending)
        for path in folder.journal.records_folder.iterdir():
            os.utime(path, (1000 + number, 1000 + number))
    plateau = recorded_plateau(read_trials(tmp_path), ELBO_MAX)
    assert (plateau.best, plateau.trials) == (-9.0, 2)
    os.utime(tmp_path / "trials/c/journal/reports/000002.json", (1001.5, 1001.5))
    assert recorded_plateau(read_trials(tmp_path), ELBO_MAX).trials == 1  # a, c, b


def run(**settings: Any) -> Search:
    return make_config(Search, "vae", settings)


def flat(trials: int) -> Plateau:
    return Plateau(Objective(METRIC, "max"), best=-9.0, spread=0.25, trials=trials)


USED = Usage(seconds=3600.0, device_seconds=14400.0, devices=4)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, ""),
        ({"max_hours": 1.01, "max_device_hours": 4.01, "stop_when_flat": 8}, ""),
        ({"max_hours": 1.0}, "--max-hours 1 is used up"),
        (
            {"max_hours": 2.0, "max_device_hours": 3.5},
            "--max-device-hours 3.5 is used up",
        ),
        (
            {"stop_when_flat": 7, "max_hours": 2.0},
            "--stop-when-flat 7: 7 trials ended without a val/elbo better than -9 by more than "
            "its spread, 0.25",
        ),
    ],
)
def test_the_budget_that_is_used_up(settings: dict[str, Any], reason: str) -> None:
    assert exhausted(run(**settings), USED, flat(7), -9.1) == reason


def test_no_budget_is_flat_before_it_is_set() -> None:
    assert exhausted(run(), Usage(), flat(1000)) == ""
