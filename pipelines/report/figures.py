"""Figures of a search's page, as plotly's own JSON: traces and a layout.

They are plain dictionaries, which the page's script gives to plotly.js, so that a page is written
without importing plotly. `docs/search.md` says what each shows. A figure has at most `MAX_POINTS`
trials: plotly draws so many at once, as SVG, without WebGL.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor, log10
from typing import Any

import numpy as np

from pipelines.analysis.importance import Importances
from pipelines.analysis.ranges import SettingRange, as_choice
from pipelines.analysis.ranking import TrialResult
from pipelines.config.objectives import Objective
from pipelines.report.contents import SearchContents
from pipelines.store.scan import RunRecord

Array = np.ndarray[Any, np.dtype[np.float64]]

MAX_POINTS = 1_000
"""Trials that a figure shows one by one."""
COLOURED = 8
"""Learning curves that have a colour each."""
_CURVES = 80
"""Further learning curves that are drawn one by one."""
_AT_EDGE = 0.9
"""Quantile of the metric beyond which trials lie outside the axis: the worst would leave no room
for the others."""
_FEW_RUNGS = 8
"""Epochs after which trials were stopped, which are then the ticks."""
_GRID = 40
"""Points of the contour along each setting."""
_BANDWIDTH = 0.08
"""Of the contour's kernel, as a part of a setting's range."""

# Colours that people with any colour vision tell apart (Okabe and Ito 2008).
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, BLACK, GREY = "#CC79A7", "#56B4E9", "#000000", "#999999"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, BLACK, "#7F6000")
ENDINGS: Mapping[str, str] = {
    "completed": BLUE,
    "stopped_early": SKY,
    "diverged": ORANGE,
    "failed": RED,
    "interrupted": PURPLE,
    "running": GREY,
}


@dataclass(frozen=True)
class Figure:
    """A figure of a page."""

    name: str
    """Unique within the search."""
    title: str
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    height: int = 320
    legend: Sequence[tuple[str, str]] = ()
    """Colours and what they mean, shown above the figure."""
    min_width: int = 0
    """Pixels; on a narrower page the figure is scrolled."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What the page's script needs beside plotly."""

    def as_json(self) -> dict[str, Any]:
        """Return what the script draws."""
        return {"data": self.data, "layout": self.layout, "height": self.height, **self.extra}


def shown_trials(contents: SearchContents) -> list[int]:
    """Return the places in the ranking of the trials with a value that are drawn one by one: all,
    or the best tenth of what fits and the others evenly by rank."""
    num = len(contents.valued)
    if num <= MAX_POINTS:
        return list(range(num))
    best = MAX_POINTS // 10
    others = np.linspace(best, num - 1, MAX_POINTS - best).round().astype(int)
    return [*range(best), *(int(each) for each in others)]


# -- history -------------------------------------------------------------------------------------
def history_figures(contents: SearchContents) -> list[Figure]:
    """Return the best value so far of a search over trials and over device-hours, with the
    trials."""
    legend = [(GREY, "a trial, in the order in which they ended"), (BLUE, "best so far")]
    return _histories([contents], "", legend)


def joint_history_figures(searches: Sequence[SearchContents], prefix: str) -> list[Figure]:
    """Return the best values so far of several searches of one metric, in the same two figures."""
    legend = [(COLOURS[i % len(COLOURS)], search.name) for i, search in enumerate(searches)]
    return _histories(searches, prefix, legend)


def _histories(
    searches: Sequence[SearchContents], prefix: str, legend: Sequence[tuple[str, str]]
) -> list[Figure]:
    axes = (("trials", "trials that have ended", 0), ("hours", "device-hours", 1))
    objective = searches[0].objective
    return [
        Figure(
            f"{prefix}history-{name}",
            f"Best {objective.metric} over {'trials' if column == 0 else 'device-hours'}",
            _history_traces(searches, column, with_trials=not prefix),
            _layout(label, _value_axis(searches)),
            legend=legend,
        )
        for name, label, column in axes
    ]


def _history_traces(
    searches: Sequence[SearchContents], column: int, with_trials: bool
) -> list[dict[str, Any]]:
    traces: list[dict[str, Any]] = []
    for index, search in enumerate(searches):
        best = [row for row in _steps(search) if row[3] is not None]
        colour = COLOURS[index % len(COLOURS)]
        if with_trials:
            traces.append(_history_points(search, column))
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if len(best) < 30 else "lines",
                "name": search.name,
                "x": [row[column] for row in best],
                "y": [row[3] for row in best],
                "line": {"shape": "hv", "color": colour, "width": 2, "dash": _dash(index)},
                "hovertemplate": f"{_escaped(search.name)}<br>best so far %{{y:.6g}} after "
                "%{x:.4g}<extra></extra>",
            }
        )
    return traces


def _dash(index: int) -> str:
    return ("solid", "dash", "dot", "dashdot")[index // len(COLOURS) % 4]


def _history_points(search: SearchContents, column: int) -> dict[str, Any]:
    places = {search.valued[place].trial_id: i for i, place in enumerate(shown_trials(search))}
    rows = [
        (row[column], row[2], places[result.trial_id])
        for row, result in zip(search.history, search.in_order, strict=True)
        if result.trial_id in places
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "trials",
        "x": [x for x, _, _ in rows],
        "y": [y for _, y, _ in rows],
        "marker": {"color": GREY, "size": 5, "opacity": 0.6},
        **_hover([place for _, _, place in rows]),
    }


def _steps(search: SearchContents) -> list[tuple[int, float, float | None, float | None]]:
    """Return the rows of the history at which the best value changes, and the last."""
    rows = search.history
    changes = [
        row
        for before, row in zip([None, *rows], rows, strict=False)
        if before is None or row[3] != before[3]
    ]
    return changes if not rows or changes[-1] is rows[-1] else [*changes, rows[-1]]


# -- settings ------------------------------------------------------------------------------------
def importance_figure(found: Mapping[Objective, Importances]) -> Figure:
    """Return a bar for each setting, and for each objective, with its interval."""
    traces: list[dict[str, Any]] = []
    legend = []
    names = next(iter(found.values())).names[::-1]
    for index, (objective, importances) in enumerate(found.items()):
        by_name = {each.name: each for each in importances.settings}
        rows = [by_name[name] for name in names]
        colour = COLOURS[index % len(COLOURS)]
        legend.append((colour, objective.metric))
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": objective.metric,
                "x": [each.share for each in rows],
                "y": names,
                "marker": {"color": colour},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [each.high - each.share for each in rows],
                    "arrayminus": [each.share - each.low for each in rows],
                    "color": "#333333",
                },
                "customdata": [[each.low, each.high] for each in rows],
                "hovertemplate": "%{y}<br>%{x:.0%}, from %{customdata[0]:.0%} to "
                "%{customdata[1]:.0%}<extra></extra>",
            }
        )
    layout = _layout("share of the importance", {"automargin": True, "fixedrange": True})
    layout["xaxis"] |= {"tickformat": ".0%", "range": [0.0, 1.0], "fixedrange": True}
    layout["barmode"] = "group"
    height = 90 + 30 * len(names) * len(found)
    return Figure(
        "importance",
        "Importance of the settings",
        traces,
        layout,
        height,
        legend if len(found) > 1 else [],
    )


def slice_figures(contents: SearchContents) -> list[Figure]:
    """Return the metric at each trial's best epoch against each searched setting, the most
    important first."""
    chosen = shown_trials(contents)
    trials = [contents.valued[place] for place in chosen]
    values = [_value(trial) for trial in trials]
    groups = (
        ([i for i, p in enumerate(chosen) if p >= _num_best(contents)], GREY, "circle", 6),
        ([i for i, p in enumerate(chosen) if 0 < p < _num_best(contents)], BLUE, "circle", 7),
        ([0], RED, "star", 13),
    )
    found = []
    for name in contents.most_important:
        scale = contents.ranges[name]
        places = _axis_values(scale, [trial.config.get(name) for trial in trials])
        traces = [
            {
                "type": "scatter",
                "mode": "markers",
                "x": [places[i] for i in indices],
                "y": [values[i] for i in indices],
                "marker": {"color": colour, "symbol": symbol, "size": size, "opacity": 0.75},
                **_hover(indices),
            }
            for indices, colour, symbol, size in groups
        ]
        layout = _layout(name, _value_axis([contents]))
        layout["xaxis"] |= _setting_axis(scale)
        found.append(Figure(f"slice-{name}", name, traces, layout, 280))
    return found


def slice_legend(contents: SearchContents) -> list[tuple[str, str]]:
    """Return what the colours of `slice_figures` mean."""
    return [(RED, "the best trial"), (BLUE, "the best tenth"), (GREY, "the others")]


def _num_best(contents: SearchContents) -> int:
    return max(1, len(contents.valued) // 10)


def contour_figure(contents: SearchContents) -> Figure | None:
    """Return the metric over the two most important settings, smoothed from all trials, with the
    trials; None with fewer than two settings that differ, or fewer than ten trials."""
    names = [n for n in contents.most_important if _differs(contents, n)][:2]
    if len(names) < 2 or len(contents.valued) < 10:
        return None
    x_scale, y_scale = (contents.ranges[name] for name in names)
    configs = [trial.config for trial in contents.valued]
    xs, ys = (
        contents.ranges[name].positions(config.get(name) for config in configs) for name in names
    )
    values = np.clip([_value(t) for t in contents.valued], *value_limits(contents))
    known = np.isfinite(xs) & np.isfinite(ys)
    x_grid, y_grid = (_grid(scale) for scale in (x_scale, y_scale))
    surface = _smooth((xs[known], ys[known]), values[known], (x_grid, y_grid), (x_scale, y_scale))
    is_grid = bool(x_scale.values or y_scale.values)
    chosen = shown_trials(contents)
    shown = [
        _axis_values(scale, [configs[p].get(n) for p in chosen])
        for scale, n in ((x_scale, names[0]), (y_scale, names[1]))
    ]
    colours: dict[str, Any] = {
        "colorscale": "Viridis",
        "reversescale": contents.objective.mode == "max",
        "colorbar": {"thickness": 12, "outlinewidth": 0},
    }
    plane = {
        "type": "heatmap" if is_grid else "contour",
        "x": _from_positions(x_scale, x_grid),
        "y": _from_positions(y_scale, y_grid),
        "z": [[None if np.isnan(z) else float(z) for z in row] for row in surface],
        "hoverinfo": "skip",
        **colours,
        **({} if is_grid else {"ncontours": 12, "connectgaps": False}),
    }
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": shown[0],
        "y": shown[1],
        "marker": {
            "color": "rgba(255,255,255,0.55)",
            "size": 5,
            "line": {"color": "black", "width": 0.6},
        },
        **_hover(list(range(len(chosen)))),
    }
    best = {**points, "x": shown[0][:1], "y": shown[1][:1], **_hover([0])}
    best["marker"] = {
        "color": RED,
        "symbol": "star",
        "size": 14,
        "line": {"color": "white", "width": 1},
    }
    layout = _layout(names[0], {"title": {"text": names[1]}, "automargin": True})
    layout["xaxis"] |= _setting_axis(x_scale)
    layout["yaxis"] |= _setting_axis(y_scale)
    return Figure("contour", f"{names[1]} against {names[0]}", [plane, points, best], layout, 440)


def _grid(scale: SettingRange) -> Array:
    """Return the positions at which the contour is computed: of a choice each value."""
    if scale.values:
        return np.linspace(0.0, 1.0, len(scale.values)) if len(scale.values) > 1 else np.zeros(1)
    return np.linspace(0.0, 1.0, _GRID)


def _smooth(
    points: tuple[Array, Array],
    values: Array,
    grids: tuple[Array, Array],
    scales: tuple[SettingRange, SettingRange],
) -> Array:
    """Return a Gaussian kernel regression of `values` (N,) on a grid (Y, X); NaN where no trial is
    near. Along a choice only trials of the same value count."""
    weights = []
    for places, grid, scale in zip(points, grids, scales, strict=True):
        away = (grid[:, None] - places[None, :]) / _BANDWIDTH
        same = np.abs(away) < 1e-6
        weights.append(same.astype(float) if scale.values else np.exp(-0.5 * away**2))
    x_weights, y_weights = weights
    total = y_weights @ x_weights.T
    with np.errstate(invalid="ignore", divide="ignore"):
        surface: Array = ((y_weights * values) @ x_weights.T) / total
    surface[total < 0.1] = np.nan
    return surface


def parallel_figure(contents: SearchContents) -> Figure:
    """Return a line for each trial through its settings and its metric. Axes can be brushed."""
    chosen = shown_trials(contents)
    trials = [contents.valued[place] for place in chosen][::-1]  # the best is drawn last, on top
    low, high = value_limits(contents)
    dimensions = []
    for name in contents.most_important:
        scale = contents.ranges[name]
        dimensions.append(_dimension(name, scale, [trial.config.get(name) for trial in trials]))
    values = np.clip([_value(trial) for trial in trials], low, high)
    dimensions.append(
        {
            "label": _wrapped(contents.objective.metric),
            "values": values.tolist(),
            "range": [low, high],
        }
    )
    trace = {
        "type": "parcoords",
        "dimensions": dimensions,
        "labelfont": {"size": 12},
        "tickfont": {"size": 11},
        "rangefont": {"size": 1, "color": "rgba(0,0,0,0)"},
        "line": {
            "color": list(range(len(trials))),
            "colorscale": "Viridis",
            "reversescale": True,
            "cmin": 0,
            "cmax": max(1, len(trials) - 1),
        },
        "unselected": {"line": {"color": "#dddddd", "opacity": 0.3}},
    }
    layout = {"margin": {"l": 70, "r": 60, "t": 76, "b": 24}, "font": {"size": 12}}
    wide = sum(max(115, 7 * max(map(len, d["label"].split("<br>"))) + 20) for d in dimensions)
    indices = list(range(len(chosen)))[::-1]
    return Figure(
        "parallel",
        "Parallel coordinates",
        [trace],
        layout,
        380,
        min_width=wide + 60,
        extra={"brush": indices},
    )


def _dimension(name: str, scale: SettingRange, values: Sequence[Any]) -> dict[str, Any]:
    places = scale.positions(values)
    places[np.isnan(places)] = -0.08  # trials that do not have the setting, below its range
    ticks: list[float]
    if scale.values:
        texts = [_short(value) for value in scale.values]
        ticks = np.linspace(0.0, 1.0, len(texts)).tolist() if len(texts) > 1 else [0.0]
    else:
        numbers = _from_positions(scale, np.linspace(0.0, 1.0, 5))
        if scale.log:
            numbers = sorted({scale.lower, scale.upper, *_log_ticks(scale.lower, scale.upper)})
        ticks, texts = scale.positions(numbers).tolist(), [f"{value:.3g}" for value in numbers]
    low = -0.1 if (places < 0).any() else 0.0
    return {
        "label": _wrapped(name),
        "values": places.tolist(),
        "range": [low, 1.0],
        "tickvals": ticks,
        "ticktext": texts,
    }


# -- epochs --------------------------------------------------------------------------------------
def curves_figure(contents: SearchContents) -> Figure:
    """Return the metric by epoch: of the best trials in colour, of others in grey; of many the
    band that holds the middle four fifths."""
    objective = contents.objective
    chosen = shown_trials(contents)
    every = max(1, -(-(len(chosen) - COLOURED) // _CURVES))
    others = list(range(len(chosen)))[COLOURED::every]
    traces: list[dict[str, Any]] = []
    legend: list[tuple[str, str]] = []
    if every > 1:
        traces.append(_band(contents))
        legend.append(("#d0d0d0", "the middle four fifths of all trials"))
    x: list[int | None] = []
    y: list[float | None] = []
    places: list[int | None] = []
    for index in others:
        epochs, values = curve(contents.valued[chosen[index]].record, objective)
        x += [*epochs, None]
        y += [*values, None]
        places += [*[index] * len(epochs), None]
    grey = {"color": "#aaaaaa", "width": 0.8}
    if others:
        traces.append(
            {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": grey, **_hover(places)}
        )
        legend.append(("#aaaaaa", "other trials"))
    running = _running_curves(contents)
    if running:
        traces.append(running)
        legend.append((BLACK, "trials that run, dotted"))
    for index in reversed(range(min(COLOURED, len(chosen)))):
        epochs, values = curve(contents.valued[chosen[index]].record, objective)
        line = {"color": COLOURS[index], "width": 2}
        mark = {"size": 5}
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": epochs,
                "y": values,
                "line": line,
                "marker": mark,
                **_hover([index] * len(epochs)),
            }
        )
    best = [contents.valued[place].trial_id for place in chosen[:COLOURED]]
    legend = [(COLOURS[i], f"{i + 1}: {name}") for i, name in enumerate(best)] + legend
    axis = _value_axis([contents])
    if every == 1 and len(chosen) <= COLOURED:
        axis = {"automargin": True}
    return Figure("curves", "Learning curves", traces, _layout("epoch", axis), 400, legend)


def curve(record: RunRecord, objective: Objective) -> tuple[list[int], list[float]]:
    """Return the epochs that have a value of the metric, and the values."""
    known = [each for each in record.counted() if objective.metric in each.metrics]
    return [each.epoch for each in known], [each.metrics[objective.metric] for each in known]


def _running_curves(contents: SearchContents) -> dict[str, Any] | None:
    x: list[int | None] = []
    y: list[float | None] = []
    texts: list[str | None] = []
    for record in contents.running[:MAX_POINTS]:
        epochs, values = curve(record, contents.objective)
        x += [*epochs, None]
        y += [*values, None]
        texts += [*[f"trial {record.folder.name}, running"] * len(epochs), None]
    if not any(each is not None for each in x):
        return None
    line = {"color": BLACK, "width": 1.2, "dash": "dot"}
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": x,
        "y": y,
        "line": line,
        "text": texts,
        "marker": {"size": 4},
        "hovertemplate": "%{text}<br>epoch %{x}: %{y:.6g}<extra></extra>",
    }


def _band(contents: SearchContents) -> dict[str, Any]:
    """Return the range that holds the values of the middle four fifths of trials at each epoch."""
    by_epoch: dict[int, list[float]] = {}
    for trial in contents.valued:
        for epoch, value in zip(*curve(trial.record, contents.objective), strict=True):
            by_epoch.setdefault(epoch, []).append(value)
    epochs = sorted(by_epoch)
    bounds = [np.quantile(by_epoch[epoch], (0.1, 0.9)).tolist() for epoch in epochs]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [*epochs, *epochs[::-1]],
        "y": [*(low for low, _ in bounds), *(high for _, high in bounds[::-1])],
        "fill": "toself",
        "fillcolor": "#e4e4e4",
        "line": {"width": 0},
        "hoverinfo": "skip",
    }


def rungs_figure(contents: SearchContents) -> Figure:
    """Return how many trials ended after how many epochs, by how they ended."""
    ended = Counter(contents.last_epochs)
    kinds = [kind for kind in ENDINGS if any(each == kind for _, each in ended)]
    traces = []
    for kind in kinds:
        rows = sorted((epoch, num) for (epoch, each), num in ended.items() if each == kind)
        text = kind.replace("_", " ")
        traces.append(
            {
                "type": "bar",
                "name": text,
                "x": [epoch for epoch, _ in rows],
                "y": [num for _, num in rows],
                "marker": {"color": ENDINGS[kind]},
                "width": max(0.8, contents.run.epochs / 50),
                "hovertemplate": f"%{{y}} trials {text} after epoch %{{x}}<extra></extra>",
            }
        )
    layout = _layout(
        "epochs that a trial was trained for", {"automargin": True, "title": {"text": "trials"}}
    )
    layout["barmode"] = "stack"
    most = max([contents.run.epochs, *(epoch for epoch, _ in ended)])
    layout["xaxis"] |= {"range": [-0.03 * most - 0.5, 1.03 * most + 0.5], "tickformat": "d"}
    if len(contents.rungs) <= _FEW_RUNGS:
        layout["xaxis"]["tickvals"] = [rung.epoch for rung in contents.rungs]
    legend = [(ENDINGS[kind], kind.replace("_", " ")) for kind in kinds]
    return Figure("rungs", "How far trials went", traces, layout, 280, legend)


# -- several objectives, seeds -------------------------------------------------------------------
def pareto_figures(contents: SearchContents) -> list[Figure]:
    """Return each further objective against the first, with the Pareto front."""
    objectives = contents.objectives
    chosen = shown_trials(contents)
    points = _points([contents.valued[place] for place in chosen], objectives)
    front = _points(contents.front, objectives)
    places = {contents.valued[place].trial_id: index for index, place in enumerate(chosen)}
    on_front = [places.get(trial.trial_id) for trial in contents.front]
    found = []
    for column in range(1, len(objectives)):
        known = [i for i in range(len(chosen)) if None not in (points[i][0], points[i][column])]
        others = {
            "type": "scatter",
            "mode": "markers",
            "x": [points[i][0] for i in known],
            "y": [points[i][column] for i in known],
            "marker": {"color": GREY, "size": 6, "opacity": 0.6},
            **_hover(known),
        }
        line = {
            "type": "scatter",
            "mode": "lines+markers" if len(objectives) == 2 else "markers",
            "x": [point[0] for point in front],
            "y": [point[column] for point in front],
            "line": {"color": BLUE, "shape": "hv", "width": 1.5},
            "marker": {"color": BLUE, "size": 9},
            **_hover(on_front),
        }
        first, other = objectives[0], objectives[column]
        layout = _layout(_better(first), {"automargin": True})
        layout["xaxis"]["range"] = _limits(_numbers(points, 0), first, _numbers(front, 0))
        layout["yaxis"]["range"] = _limits(
            _numbers(points, column), other, _numbers(front, column)
        )
        legend = [(BLUE, "Pareto front"), (GREY, "other trials")]
        found.append(
            Figure(f"pareto-{column}", _better(other), [others, line], layout, 400, legend)
        )
    return found


def seeds_figure(contents: SearchContents) -> Figure:
    """Return the value of each seed of a seed study, with the mean and the studied run's value."""
    values = [_value(trial) for trial in contents.valued]
    indices = list(range(min(len(values), MAX_POINTS)))
    spread = np.random.default_rng(0).uniform(-0.3, 0.3, len(indices)).tolist()
    chosen = shown_trials(contents)
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [values[place] for place in chosen],
            "y": spread,
            "marker": {"color": BLUE, "size": 8, "opacity": 0.7},
            **_hover(indices),
        }
    ]
    legend = [(BLUE, "a seed")]
    lines = []
    seeds, study = contents.selection.seeds, contents.run.seed_study
    if seeds:
        lines.append((seeds.mean, BLACK, "mean over the seeds"))
    if study and study.value is not None:
        lines.append((study.value, RED, "the studied run"))
    for value, colour, text in lines:
        legend.append((colour, text))
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [value, value],
                "y": [-0.5, 0.5],
                "line": {"color": colour, "width": 2},
                "hovertemplate": f"{text}: %{{x:.6g}}<extra></extra>",
            }
        )
    layout = _layout(_better(contents.objective), {"visible": False, "range": [-0.6, 0.6]})
    return Figure("seeds", "Values of the seeds", traces, layout, 200, legend)


# -- axes ----------------------------------------------------------------------------------------
def value_limits(contents: SearchContents) -> tuple[float, float]:
    """Return the part of the metric's range that is shown at first."""
    low, high = _limits([_value(trial) for trial in contents.valued], contents.objective)
    return low, high


def _limits(
    values: Sequence[float], objective: Objective, kept: Sequence[float] = ()
) -> list[float]:
    """Return the part of a metric's range that is shown: it contains `kept`, and has a margin."""
    quantiles = (1.0 - _AT_EDGE, 1.0) if objective.mode == "max" else (0.0, _AT_EDGE)
    ends = [*(np.quantile(values, quantiles) if len(values) else (0.0, 1.0)), *kept]
    low, high = float(min(ends)), float(max(ends))
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return [low - margin, high + margin]


def _value_axis(searches: Sequence[SearchContents]) -> dict[str, Any]:
    limits = [value_limits(search) for search in searches if search.valued]
    low = min((each[0] for each in limits), default=0.0)
    high = max((each[1] for each in limits), default=1.0)
    return {"range": [low, high], "automargin": True}


def _setting_axis(scale: SettingRange) -> dict[str, Any]:
    if scale.values:
        texts = [_short(value) for value in scale.values]
        return {
            "tickvals": list(range(len(texts))),
            "ticktext": texts,
            "range": [-0.5, len(texts) - 0.5],
            "type": "linear",
            "automargin": True,
        }
    if not scale.log:
        margin = 0.03 * (scale.upper - scale.lower)
        return {"range": [scale.lower - margin, scale.upper + margin], "type": "linear"}
    low, high = np.log10(scale.lower), np.log10(scale.upper)
    margin, ticks = 0.03 * (high - low), _log_ticks(scale.lower, scale.upper)
    return {
        "type": "log",
        "range": [low - margin, high + margin],
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
    }


def _log_ticks(low: float, high: float) -> list[float]:
    """Return the ticks of a logarithmic axis: powers of 10, and of a short one 2 and 5 times
    these."""
    first, last = floor(log10(low)), ceil(log10(high))
    steps = (1, 2, 5) if last - first <= 3 else (1,)
    every = max(1, (last - first) // 6)
    ticks = [float(f"{step}e{power}") for power in range(first, last + 1, every) for step in steps]
    return [tick for tick in ticks if low * 0.99 <= tick <= high * 1.01]


def _axis_values(scale: SettingRange, values: Sequence[Any]) -> list[Any]:
    """Return values as an axis of `_setting_axis` has them: of a choice their places."""
    if not scale.values:
        return list(values)
    places = {as_choice(value): place for place, value in enumerate(scale.values)}
    return [None if value is None else places.get(as_choice(value)) for value in values]


def _from_positions(scale: SettingRange, positions: Array) -> list[float]:
    """Return the values at positions from 0 to 1; of a choice the places."""
    if scale.values:
        return list(range(len(scale.values)))
    if scale.log:
        low, high = np.log(scale.lower), np.log(scale.upper)
        found: list[float] = np.exp(low + positions * (high - low)).tolist()
        return found
    linear: list[float] = (scale.lower + positions * (scale.upper - scale.lower)).tolist()
    return linear


def _layout(x_title: str, y_axis: Mapping[str, Any]) -> dict[str, Any]:
    grid = {"gridcolor": "#e8e8e8", "zeroline": False, "linecolor": "#888888"}
    grid |= {"ticks": "outside", "exponentformat": "none"}
    return {
        "xaxis": {**grid, "title": {"text": x_title}, "automargin": True},
        "yaxis": {**grid, **y_axis},
        "margin": {"l": 50, "r": 12, "t": 30, "b": 44},
        "hovermode": "closest",
        "showlegend": False,
        "plot_bgcolor": "white",
        "font": {"size": 12},
    }


def _hover(places: Sequence[int | None]) -> dict[str, Any]:
    """Return the part of a trace that shows trials when they are pointed at. `places`: of each
    point, the index of its trial among those of the page, whose texts the script makes."""
    return {
        "customdata": {"trials": list(places)},
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _points(
    trials: Sequence[TrialResult], objectives: Sequence[Objective]
) -> list[list[float | None]]:
    return [trial.values(objectives) for trial in trials]


def _numbers(points: Sequence[Sequence[float | None]], column: int) -> list[float]:
    return [value for point in points if (value := point[column]) is not None]


def _value(trial: TrialResult) -> float:
    assert trial.best
    return trial.best.value


def _differs(contents: SearchContents, name: str) -> bool:
    return len({str(trial.config.get(name)) for trial in contents.valued}) > 1


def _better(objective: Objective) -> str:
    better = "higher" if objective.mode == "max" else "lower"
    return f"{objective.metric} ({better} is better)"


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(as_choice(value))
    return text if len(text) <= 16 else f"{text[:15]}…"


def _wrapped(name: str) -> str:
    """Return a name on two lines if it is long: broken after a group or a slash."""
    for mark in (".", "/"):
        head, found, tail = name.rpartition(mark)
        if found and len(name) > 12:
            return f"{_escaped(head)}{mark}<br>{_escaped(tail)}"
    return _escaped(name)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
