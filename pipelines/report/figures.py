"""Figures of a search's page, as PNG files, drawn by matplotlib without a display."""

from __future__ import annotations

import io
from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.analysis.ranking import TrialResult
from pipelines.config.objectives import Objective

COLOURED = 8
"""Learning curves that have a colour each; the others are grey."""
_COLUMNS = 3
_LOG_FROM = 20.0
"""A setting whose largest value is this many times its smallest has a logarithmic scale."""
_LABELS = 20
"""Trials of a Pareto front that are labelled with their ranks, at most."""
_AT_EDGE = 0.9
"""Quantile of the metric beyond which trials are drawn at the edge: the worst would leave no room
for the others."""

_BEHIND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
"""Background of a label, so that lines do not cross it."""


class Scale:
    """Maps a setting's values to positions on an axis: numbers as they are, or their logarithms if
    they differ by a large factor; other values in the order of their text."""

    def __init__(self, values: Sequence[Any]) -> None:
        numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
        self.is_number = len(numbers) == len(values)
        self.names = [] if self.is_number else sorted({str(value) for value in values})
        self.is_log = (
            self.is_number and min(numbers) > 0 and max(numbers) > _LOG_FROM * min(numbers)
        )

    def positions(self, values: Sequence[Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the positions of N values, (N,)."""
        if not self.is_number:
            return np.array([self.names.index(str(value)) for value in values], np.float64)
        numbers = np.array(values, np.float64)
        return np.log10(numbers) if self.is_log else numbers


def learning_curves(trials: Sequence[TrialResult], objective: Objective) -> bytes:
    """Draw the metric by epoch, the best trials in colour. `trials`: the best first."""
    figure, axes = _figure(9.0, 4.5)
    for trial in trials[COLOURED:]:
        axes.plot(*_curve(trial, objective), color="0.8", linewidth=0.7)
    for rank, trial in reversed(list(enumerate(trials[:COLOURED], 1))):
        name = f"{rank}: {trial.trial_id}"
        curve = _curve(trial, objective)
        axes.plot(*curve, marker=".", color=f"C{rank - 1}", label=name)
    values = [value for trial in trials[:COLOURED] for value in _curve(trial, objective)[1]]
    axes.set_ylim(*_limits(values, objective))
    axes.set_xlabel("epoch")
    axes.set_ylabel(str(objective))
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], fontsize="small")
    return _png(figure)


def _curve(trial: TrialResult, objective: Objective) -> tuple[list[int], list[float]]:
    """Return the epochs that have a value of the metric, and the values."""
    known = [r for r in trial.record.counted() if objective.metric in r.metrics]
    return [r.epoch for r in known], [r.metrics[objective.metric] for r in known]


def against_settings(trials: Sequence[TrialResult], objective: Objective) -> bytes:
    """Draw the metric at each trial's best epoch against each searched setting."""
    names, values = list(trials[0].config), _values(trials)
    rows, columns = ceil(len(names) / _COLUMNS), min(len(names), _COLUMNS)
    figure = Figure(figsize=(3.6 * columns + 0.6, 3.2 * rows), layout="constrained")
    low, high = _limits(values, objective)
    for index, name in enumerate(names, 1):
        axes = figure.add_subplot(rows, columns, index)
        settings = [trial.config[name] for trial in trials]
        scale = Scale(settings)
        shown = settings if scale.is_number else scale.positions(settings)
        colours = _by_rank(len(trials))
        axes.scatter(shown, np.clip(values, low, high), c=colours, s=18, clip_on=False)
        if scale.is_log:
            axes.set_xscale("log")
        if not scale.is_number:
            axes.set_xticks(range(len(scale.names)), scale.names)
        axes.set_ylim(low, high)
        axes.set_xlabel(name)
        axes.set_ylabel(objective.metric if index % _COLUMNS == 1 or columns == 1 else "")
    return _png(figure)


def parallel_coordinates(trials: Sequence[TrialResult], objective: Objective) -> bytes:
    """Draw a line for each trial through its settings and its metric, the best ones on top."""
    names, values = list(trials[0].config), _values(trials)
    low, high = _limits(values, objective)
    columns = [[trial.config[name] for trial in trials] for name in names]
    columns.append(np.clip(values, low, high).tolist())
    figure, axes = _figure(1.8 * len(columns) + 2.0, 4.2)
    heights = np.stack([_draw_scale(axes, x, column) for x, column in enumerate(columns)])
    colours = _by_rank(len(trials))
    for index in reversed(range(len(trials))):
        axes.plot(heights[:, index], color=colours[index], linewidth=1.2, alpha=0.7)
    axes.set_xticks(range(len(columns)), [*names, objective.metric])
    axes.set_yticks([])
    axes.set_xlim(-0.2, len(columns) - 0.4)
    axes.spines[:].set_visible(False)
    return _png(figure)


def pareto_diagram(
    trials: Sequence[TrialResult],
    front: Sequence[tuple[int, TrialResult]],
    objectives: Sequence[Objective],
) -> bytes:
    """Draw each further objective of the trials against the first. `front`: the trials of the
    Pareto front with their ranks, in order of the first objective."""
    points, members = (_points(each, objectives) for each in (trials, [t for _, t in front]))
    limits = [
        _limits(points[:, column].tolist(), objective, members[:, column].tolist())
        for column, objective in enumerate(objectives)
    ]
    columns = len(objectives) - 1
    figure = Figure(figsize=(6.0 * columns + 1.0, 4.8), layout="constrained")
    for column in range(1, columns + 1):
        axes = figure.add_subplot(1, columns, column)
        x, y = (np.clip(points[:, i], *limits[i]) for i in (0, column))
        axes.scatter(x, y, color="0.7", s=18, clip_on=False)
        plane = objectives[0], objectives[column]
        _draw_front(axes, front, members[:, [0, column]], plane, joined=columns == 1)
        axes.set(xlim=limits[0], ylim=limits[column])
        axes.set(xlabel=_axis_label(objectives[0]), ylabel=_axis_label(objectives[column]))
    return _png(figure)


def _draw_front(
    axes: Axes,
    front: Sequence[tuple[int, TrialResult]],
    points: np.ndarray[Any, np.dtype[np.float64]],
    plane: tuple[Objective, Objective],
    joined: bool,
) -> None:
    """Draw the front's trials at `points` (N, 2), with ranks on their good side, where no trial
    is. `joined`: with the line that bounds what was reached, which exists for two objectives
    only."""
    if joined:
        axes.plot(points[:, 0], points[:, 1], color="C0", drawstyle="steps-post")
    axes.scatter(points[:, 0], points[:, 1], color="C0", s=32, zorder=3)
    right, up = (objective.mode == "max" for objective in plane)
    aligned: dict[str, Any] = {"ha": "left" if right else "right", "va": "bottom" if up else "top"}
    offset = (4 if right else -4, 4 if up else -4)
    every = ceil(len(front) / _LABELS)
    for (rank, _), point in list(zip(front, points, strict=True))[::every]:
        axes.annotate(
            str(rank), point, offset, textcoords="offset points", fontsize="small", **aligned
        )


def _points(
    trials: Sequence[TrialResult], objectives: Sequence[Objective]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the trials' values (N, M) of the objectives; NaN where one is missing."""
    rows = [trial.values(objectives) for trial in trials]
    return np.array(rows, np.float64).reshape(len(trials), len(objectives))


def _axis_label(objective: Objective) -> str:
    better = "higher" if objective.mode == "max" else "lower"
    return f"{objective.metric} ({better} is better)"


def _draw_scale(
    axes: Axes, x: int, column: Sequence[Any]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Draw a vertical scale from 0 to 1 with its ends' or its categories' names; the heights
    (N,) of the values on it."""
    scale = Scale(column)
    at = scale.positions(column)
    low, high = at.min(), at.max()
    heights: np.ndarray[Any, np.dtype[np.float64]] = (
        (at - low) / (high - low) if high > low else np.full(len(at), 0.5)
    )
    axes.axvline(x, color="0.3", linewidth=0.8)
    shown = [int(at.argmin()), int(at.argmax())]
    if not scale.is_number:
        shown = [[str(value) for value in column].index(name) for name in scale.names]
    for index in shown:
        value = column[index]
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        axes.text(x + 0.03, heights[index], text, fontsize="small", va="center", bbox=_BEHIND)
    return heights


def _values(trials: Sequence[TrialResult]) -> list[float]:
    return [trial.best.value for trial in trials if trial.best]


def _limits(
    values: Sequence[float], objective: Objective, kept: Sequence[float] = ()
) -> tuple[float, float]:
    """Return the part of a metric's range that is shown: it contains `kept`, and has a margin."""
    quantiles = (1.0 - _AT_EDGE, 1.0) if objective.mode == "max" else (0.0, _AT_EDGE)
    ends = [*np.nanquantile(values, quantiles), *kept]
    low, high = float(min(ends)), float(max(ends))
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _by_rank(num: int) -> list[Any]:
    """Return N colours, from the best trial's to the worst's."""
    return list(colormaps["viridis"](np.linspace(0.0, 0.95, num)))


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()
