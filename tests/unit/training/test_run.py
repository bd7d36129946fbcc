"""`genpipe.train`: what it refuses before Ray starts, and how it shows an epoch."""

from dataclasses import replace
from typing import Any

import pytest

from gen_models.core.errors import InputError
from pipelines.config.run import Train, defaults
from pipelines.config.search import with_metrics
from pipelines.store.journal import EpochRecord
from pipelines.training.run import epoch_line, train


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "val/strange"}, "metric = 'val/strange': expected one whose name says"),
        ({"metric": "val/elbo", "mode": "up"}, "mode = 'up': expected min or max"),
        ({"metric": ["val/elbo", "val/fd"]}, "metric = 'val/elbo val/fd': expected one, because"),
        ({"metric": []}, "metric = []: expected text"),
        ({"metric": 5}, "metric = 5: expected text"),
        ({"name": "../x"}, "name = '../x': expected a name of at most 200 bytes without a slash"),
        ({"epochs": "5"}, "epochs = '5': expected an integer"),
        ({"trials": 3}, "trials = 3: expected one of"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        train("vae", **settings)
    assert str(caught.value).startswith(message)


def test_the_direction_of_a_metric_is_looked_up() -> None:
    run = with_metrics(defaults(Train, "vae"), ["val/elbo"], [])
    assert (run.metric, run.mode) == ("val/elbo", "max")
    assert with_metrics(defaults(Train, "vae"), [], []) == defaults(Train, "vae")


def test_epochs_stand_below_each_other_the_ranking_metric_first() -> None:
    run = replace(defaults(Train, "vae"), metric="val/nll/iw8", epochs=100)
    names = ("train/kl", "val/elbo", "train/loss", "val/kl", "val/fd/lenet-digits/2k")

    def line(epoch: int, value: float, speed: float) -> str:
        metrics = dict.fromkeys([*names, run.metric], value) | {"images_per_second": speed}
        return epoch_line(EpochRecord(epoch, metrics, {}), run)

    assert [line(9, 25.687994, 900.0), line(100, -0.00012345, 123456.7)] == [
        "epoch   9/100  val/nll/iw8 25.69       train/loss 25.69       900 images/s",
        "epoch 100/100  val/nll/iw8 -0.0001234  train/loss -0.0001234  123,457 images/s",
    ]
    assert (
        epoch_line(EpochRecord(1, {run.metric: 1.5}, {}), run) == "epoch   1/100  val/nll/iw8 1.5"
    )
