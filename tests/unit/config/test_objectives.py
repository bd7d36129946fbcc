"""Objectives: a metric and the direction in which it is good."""

import math

import pytest

from gen_models.core.errors import InputError
from pipelines.config.objectives import (
    Objective,
    describe,
    known_mode,
    make_objectives,
    parse_mode,
)

UP, DOWN = Objective("val/elbo", "max"), Objective("val/fd", "min")


def test_the_larger_or_the_smaller_value_is_better() -> None:
    assert UP.better(-1.0, -2.0) and not UP.better(-2.0, -1.0)
    assert DOWN.better(1.0, 2.0) and not DOWN.better(2.0, 1.0)
    assert not UP.better(1.0, 1.0) and not DOWN.better(1.0, 1.0)


def test_costs_sort_the_best_value_first() -> None:
    values = [3.0, -1.0, 0.0, 2.0]
    assert sorted(values, key=UP.cost) == [3.0, 2.0, 0.0, -1.0]
    assert sorted(values, key=DOWN.cost) == [-1.0, 0.0, 2.0, 3.0]


@pytest.mark.parametrize("objective", [UP, DOWN])
def test_the_worst_value_is_finite_and_worse_than_any(objective: Objective) -> None:
    assert math.isfinite(objective.worst)
    assert all(objective.better(value, objective.worst) for value in (-1e20, 0.0, 1e20))


def test_objectives_as_text() -> None:
    assert str(UP) == "val/elbo (max)"
    assert describe([UP, DOWN]) == "val/elbo (max), val/fd (min)"


@pytest.mark.parametrize(
    ("family", "metric", "mode"),
    [
        ("vae", "val/nll", "min"),
        ("vae", "val/nll/iw8", "min"),
        ("vae", "val/elbo", "max"),
        ("vae", "val/fd/lenet-digits/2k", "min"),
        ("vae", "val/kd", "min"),
        ("vae", "val/precision", "max"),
        ("vae", "val/recall", "max"),
        ("vae", "val/density", "max"),
        ("vae", "val/coverage", "max"),
        ("vae", "val/log_likelihood", "max"),
        ("vae", "val/reconstruction", "min"),
        ("vae", "val/squared_error", "min"),
        ("autoencoder", "val/squared_error", "min"),
        ("gan", "val/fd", "min"),
        ("gan", "val/mode_distance", "min"),
    ],
)
def test_the_direction_of_a_metric_is_known_from_its_name(
    family: str, metric: str, mode: str
) -> None:
    assert known_mode(family, metric) == mode


@pytest.mark.parametrize("metric", ["val/kl", "val/accuracy", "val/elbo_error", "val/fdr"])
def test_a_name_that_tells_no_direction_or_two_is_refused(metric: str) -> None:
    with pytest.raises(InputError) as caught:
        known_mode("vae", metric)
    assert str(caught.value) == (
        f"metric = {metric!r}: expected one whose name says what is good, as val/nll, "
        "or --mode min or max with it"
    )


def test_objectives_are_made_of_metrics_and_modes() -> None:
    assert make_objectives("vae", ["val/elbo", "val/fd"]) == [UP, DOWN]
    given = make_objectives("vae", ["val/kl", "val/elbo"], ["max", "min"])
    assert given == [Objective("val/kl", "max"), Objective("val/elbo", "min")]


@pytest.mark.parametrize(
    ("modes", "message"),
    [
        (["least"], "mode = 'least': expected min or max"),
        (["max"], "mode = 'max': expected none, or one for each --metric, 2"),
        (["max"] * 3, "mode = 'max max max': expected none, or one for each --metric, 2"),
    ],
)
def test_wrong_modes_are_refused(modes: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        make_objectives("vae", ["val/elbo", "val/fd"], modes)
    assert str(caught.value) == message


def test_a_mode_is_parsed() -> None:
    assert parse_mode("min") == "min"
    with pytest.raises(InputError, match="mode = 'MIN': expected min or max"):
        parse_mode("MIN")
