"""`genpipe.train`: what it refuses before Ray starts."""

from typing import Any

import pytest

from gen_models.core.errors import InputError
from pipelines.config.run import Train, defaults
from pipelines.config.search import with_metrics
from pipelines.training.run import train


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
