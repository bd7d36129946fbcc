"""Figures as plotly's JSON: accepted by plotly's own schema, with axes that can be read."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plotly.graph_objects import Figure as PlotlyFigure
from support.journals import METRIC
from support.page import config_of, contents_of, open_search, write_trial

from pipelines.config.search import SeedStudy
from pipelines.report import figures
from pipelines.report.contents import SearchContents
from pipelines.report.figures import (
    COLOURED,
    Figure,
    contour_figure,
    curves_figure,
    history_figures,
    importance_figure,
    joint_history_figures,
    parallel_figure,
    pareto_figures,
    rungs_figure,
    seeds_figure,
    slice_figures,
    value_limits,
)

SEARCHED = ["model.hidden", "model.latent_dim", "optim.lr"]


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> SearchContents:
    """Forty trials, of which the learning rate decides nearly alone."""
    search = open_search(tmp_path_factory.mktemp("s") / "vae-1", searched=SEARCHED)
    rng = np.random.default_rng(0)
    for index in range(40):
        rate = float(10 ** rng.uniform(-3.4, -2.1))
        config = {"model.hidden": str([(256,), (512, 512)][index % 2]), "optim.lr": rate}
        config["model.latent_dim"] = [4, 8, 12, 16][index % 4]
        cost = 20.0 + 9.0 * abs(math.log10(rate) + 2.5)
        epochs = [{METRIC: -cost - 10.0 / e, "val/fd": 1 / cost} for e in range(1, 3 + index % 4)]
        write_trial(
            search, f"t{index}", config, epochs, "completed" if index % 4 else "stopped_early"
        )
    return contents_of(search)


def all_figures(contents: SearchContents) -> list[Figure]:
    contour = contour_figure(contents)
    assert contour
    return [
        *history_figures(contents),
        importance_figure(contents.importances),
        *slice_figures(contents),
        contour,
        parallel_figure(contents),
        curves_figure(contents),
        rungs_figure(contents),
    ]


def resolved(figure: Figure) -> list[dict[str, Any]]:
    """The traces as the page's script gives them to plotly."""
    found = []
    for trace in figure.data:
        each = dict(trace)
        if isinstance(each.get("customdata"), dict):
            each["customdata"] = ["" for _ in each["customdata"]["trials"]]
        found.append(each)
    return found


def test_plotly_accepts_every_figure(contents: SearchContents, tmp_path: Path) -> None:
    front = contents_of(contents.folder, config_of(further=(("val/fd", "min"),), scheduler="fifo"))
    study = SeedStudy(run="r", name="n", search_id="", data_digest="d", value=-21.0)
    seeds = contents_of(contents.folder, config_of(seed_study=study))
    drawn = [*all_figures(contents), *pareto_figures(front), seeds_figure(seeds)]
    assert len({figure.name for figure in drawn}) == len(drawn)
    for figure in drawn:
        made = PlotlyFigure(data=resolved(figure), layout=figure.layout)  # raises if one is wrong
        assert len(made.data) == len(figure.data) > 0


def test_points_have_as_many_texts_as_places(contents: SearchContents) -> None:
    for figure in all_figures(contents):
        for trace in figure.data:
            if isinstance(trace.get("customdata"), dict):
                places = trace["customdata"]["trials"]
                assert len(places) == len(trace["x"]) == len(trace["y"]), figure.name
                assert all(p is None or 0 <= p < 40 for p in places)


def test_slices_have_the_most_important_setting_first(contents: SearchContents) -> None:
    rate, *others = slice_figures(contents)
    assert rate.title == "optim.lr" and {f.title for f in others} == set(SEARCHED[:2])
    axis = rate.layout["xaxis"]
    assert axis["type"] == "log" and axis["ticktext"] == [
        "0.0005",
        "0.001",
        "0.002",
        "0.005",
        "0.01",
    ]
    low, high = axis["range"]
    assert low < math.log10(0.0003) and high > -2.0  # the whole range of the space is in view
    hidden = next(f for f in others if f.title == "model.hidden")
    assert hidden.layout["xaxis"]["ticktext"] == ["[256]", "[512, 512]"]
    assert {x for trace in hidden.data for x in trace["x"]} == {0, 1}
    best = rate.data[-1]
    assert best["marker"]["symbol"] == "star" and best["y"] == [contents.history[-1][3]]


def test_the_worst_tenth_lies_outside_the_axis(contents: SearchContents) -> None:
    low, high = value_limits(contents)
    values = sorted(trial.best.value for trial in contents.valued if trial.best)
    assert values[0] < low < np.quantile(values, 0.1) and high > values[-1]
    (drawn,) = {tuple(f.layout["yaxis"]["range"]) for f in slice_figures(contents)}
    assert drawn == (low, high)


def test_the_contour_is_good_where_trials_are(contents: SearchContents) -> None:
    figure = contour_figure(contents)
    assert figure
    plane = figure.data[0]
    z = np.array(plane["z"], float)
    assert z.shape == (len(plane["y"]), len(plane["x"]))
    rates = plane["x"] if len(plane["x"]) > 10 else plane["y"]
    along = np.nanmean(z, axis=0 if rates is plane["x"] else 1)
    assert math.log10(rates[int(np.nanargmax(along))]) == pytest.approx(-2.5, abs=0.2)
    assert plane["reversescale"]  # dark is good, and large is good
    low, high = value_limits(contents)
    assert low <= np.nanmin(z) and np.nanmax(z) <= high


def test_parallel_coordinates_have_an_axis_a_setting(contents: SearchContents) -> None:
    figure = parallel_figure(contents)
    (trace,) = figure.data
    labels = [each["label"].replace("<br>", "") for each in trace["dimensions"]]
    assert labels[0] == "optim.lr" and set(labels) == {*SEARCHED, METRIC}
    for dimension in trace["dimensions"]:
        low, high = dimension["range"]
        assert len(dimension["values"]) == 40
        assert all(low - 1e-9 <= value <= high + 1e-9 for value in dimension["values"])
    assert figure.extra["brush"] == list(range(40))[::-1]  # the best is drawn last, on top
    colours = trace["line"]["color"]
    assert colours[-1] == max(colours) and trace["line"]["reversescale"]
    assert figure.min_width > 100 * len(labels)


def test_learning_curves_are_coloured_for_the_best(
    contents: SearchContents, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = curves_figure(contents)
    coloured = [trace for trace in figure.data if trace["line"].get("width") == 2]
    assert len(coloured) == COLOURED
    best = contents.valued[0]
    assert coloured[-1]["x"] == [each.epoch for each in best.record.counted()]
    assert coloured[-1]["y"] == [each.metrics[METRIC] for each in best.record.counted()]
    assert figure.legend[0][1] == f"1: {best.trial_id}"
    grey = figure.data[0]
    assert grey["x"].count(None) == 40 - COLOURED
    monkeypatch.setattr(figures, "_CURVES", 4)
    band, grey, *_ = curves_figure(contents).data
    assert grey["x"].count(None) == 4 and band["fill"] == "toself"
    values = [
        r.metrics[METRIC] for t in contents.valued for r in t.record.counted() if r.epoch == 1
    ]
    assert band["y"][0] == pytest.approx(np.quantile(values, 0.1))
    assert band["y"][-1] == pytest.approx(np.quantile(values, 0.9))


def test_several_searches_have_a_curve_each(contents: SearchContents) -> None:
    trials, hours = joint_history_figures([contents, contents], "all-")
    assert [trace["mode"].split("+")[0] for trace in trials.data] == ["lines", "lines"]
    assert trials.data[0]["line"]["color"] != trials.data[1]["line"]["color"]
    assert hours.data[0]["x"][-1] == pytest.approx(contents.device_hours)
    assert (trials.name, hours.name) == ("all-history-trials", "all-history-hours")


def test_ticks_of_a_logarithmic_axis_are_round() -> None:
    assert figures._log_ticks(3e-4, 1e-2) == [5e-4, 1e-3, 2e-3, 5e-3, 1e-2]
    assert figures._log_ticks(1e-6, 1.0) == [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    assert figures._log_ticks(1e-12, 1.0)[:2] == [1e-12, 1e-10]
