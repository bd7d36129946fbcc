"""Ranges of settings: positions in them, edges, and wider ones."""

import numpy as np
import pytest

from pipelines.analysis.ranges import SettingRange, observed_range, setting_ranges
from pipelines.config.run import defaults
from pipelines.config.search import Search

RATE = SettingRange(1e-4, 1e-2, log=True)
DIM = SettingRange(values=(4, 8, 16))
WIDTHS = SettingRange(values=((256,), (512, 512)))


def test_the_ranges_are_those_of_the_space() -> None:
    run = defaults(Search, "vae")
    names = ["model.latent_dim", "model.kl_weight", "optim.lr"]
    config = {"model.latent_dim": 8, "model.kl_weight": 1.0, "optim.lr": 1e-3}
    found = setting_ranges(run, names, [config])
    assert found["model.latent_dim"].values == (4, 8, 12, 16, 24, 32)
    assert found["optim.lr"] == SettingRange(3e-4, 1e-2, log=True)
    # A trial outside: the space was another one then.
    wider = setting_ranges(run, names, [config, config | {"optim.lr": 0.1}])
    assert wider["optim.lr"] == SettingRange(1e-3, 0.1, log=True, is_searched=False)
    unknown = setting_ranges(run, ["seed"], [{"seed": 3}, {"seed": 9}])
    assert unknown["seed"] == SettingRange(values=(3, 9), is_searched=False)


@pytest.mark.parametrize(
    ("scale", "values", "places"),
    [
        (RATE, [1e-4, 1e-3, 1e-2, None], [0.0, 0.5, 1.0, np.nan]),
        (SettingRange(0.0, 4.0), [0, 1, 4], [0.0, 0.25, 1.0]),
        (DIM, [4, 16, 5], [0.0, 1.0, np.nan]),
        (WIDTHS, ["(256,)", "[512, 512]", (256,)], [0.0, 1.0, 0.0]),
        (SettingRange(values=(True, False)), [True, False], [0.0, 1.0]),
    ],
)
def test_positions(scale: SettingRange, values: list[object], places: list[float]) -> None:
    assert scale.positions(values).tolist() == pytest.approx(places, nan_ok=True)


@pytest.mark.parametrize(
    ("scale", "value", "edge", "wider"),
    [
        (RATE, 9.9e-3, "upper", "loguniform(0.0001, 0.1)"),
        (RATE, 1.1e-4, "lower", "loguniform(1e-05, 0.01)"),
        (RATE, 1e-3, None, ""),
        (RATE, None, None, ""),
        (SettingRange(1.0, 3.0), 3.0, "upper", "uniform(1.0, 5.0)"),
        (SettingRange(1.0, 3.0), 1.05, "lower", "uniform(0.0, 3.0)"),
        (SettingRange(0.0, 0.5), 0.0, None, ""),  # below 0 it means nothing
        (SettingRange(1, 9, integer=True), 9, "upper", "randint(1, 18)"),
        (DIM, 16, "upper", "choice([4, 8, 16, 24])"),
        (DIM, 4, "lower", "choice([2, 4, 8, 16])"),
        (DIM, 8, None, ""),
        (SettingRange(values=(4, 8)), 8, None, ""),
        (WIDTHS, "(256,)", None, ""),
        (SettingRange(1e-4, 1e-2, log=True, is_searched=False), 1e-2, None, ""),
    ],
)
def test_a_value_at_an_edge_has_a_wider_range(
    scale: SettingRange, value: object, edge: str | None, wider: str
) -> None:
    found = scale.edge(value)
    assert found == edge
    if found:
        assert scale.widened(found).as_domain() == wider


def test_observed_ranges() -> None:
    assert observed_range([1e-4, 1e-2]).log and not observed_range([1.0, 3.0]).log
    assert observed_range([3, 1, 1]).values == (1, 3)
    assert observed_range(list(range(20))) == SettingRange(0, 19, integer=True, is_searched=False)
    assert observed_range(["mlp", "conv"]).values == ("conv", "mlp")
    assert observed_range([True, False]).values == (False, True)
    assert observed_range([0.5]).values == (0.5,)
    assert observed_range([]).values == ()


def test_the_text_of_a_range() -> None:
    assert str(RATE) == "0.0001 to 0.01, logarithmic"
    assert str(DIM) == "4, 8, 16"
    assert WIDTHS.as_domain() == "choice([[256], [512, 512]])"
