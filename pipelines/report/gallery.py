"""Samples of trials, laid out over the two settings that matter most."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.analysis.ranges import SettingRange, as_choice
from pipelines.analysis.ranking import TrialResult
from pipelines.report.contents import SearchContents
from pipelines.report.embedding import png_url

_MAX_CELLS = 5
"""Columns and rows, at most."""
_WITHOUT_SETTINGS = 6
"""Trials that are shown where no setting differs."""
_PICTURE = "samples"


@dataclass(frozen=True)
class Cell:
    """The best trial of those whose settings lie in a cell, with its samples."""

    trial_id: str
    rank: int
    value: float
    epoch: int
    """Its best one, at which the samples were drawn."""
    picture: str
    """A URL with the content of the PNG file."""
    num: int
    """The trials with a value in the cell."""


@dataclass(frozen=True)
class Gallery:
    """Cells by row and column; None where no trial has samples."""

    x_name: str
    y_name: str
    columns: tuple[str, ...]
    """The part of the range that each column covers."""
    rows: tuple[str, ...]
    cells: tuple[tuple[Cell | None, ...], ...]


_Ranked = tuple[int, TrialResult]
"""A trial and its rank."""


@dataclass(frozen=True)
class _Layout:
    """The trials with a value by cell, the best first."""

    x_name: str
    y_name: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    cells: tuple[tuple[Sequence[_Ranked], ...], ...]


def shown_trials(search: SearchContents) -> list[TrialResult]:
    """Return the best trial of each cell: those of which a gallery wants samples."""
    cells = chain.from_iterable(_layout(search).cells)
    return [trials[0][1] for trials in cells if trials]


def make_gallery(search: SearchContents) -> Gallery | None:
    """Return the samples over the two most important settings in which trials differ; None if no
    trial has any."""
    found = _layout(search)
    cells = tuple(tuple(_cell(trials) for trials in row) for row in found.cells)
    if not any(chain.from_iterable(cells)):
        return None
    return Gallery(found.x_name, found.y_name, found.columns, found.rows, cells)


def _layout(search: SearchContents) -> _Layout:
    ranked, ranges = list(enumerate(search.valued, 1)), search.ranges
    names = [] if search.run.seed_study else [n for n in search.most_important if n in ranges]
    differing = [n for n in names if len({str(t.config.get(n)) for _, t in ranked}) > 1][:2]
    if not differing:
        shown = ranked[:_WITHOUT_SETTINGS]
        return _Layout("", "", ("",) * len(shown), ("",), (tuple([each] for each in shown),))
    x_name, *further = differing
    most = min(_MAX_CELLS, max(2, round(len(ranked) ** 0.5)))
    columns = _bins(ranges[x_name], [trial.config.get(x_name) for _, trial in ranked], most)
    rows = [("", np.ones(len(ranked), bool))]
    for y_name in further:
        rows = _bins(ranges[y_name], [trial.config.get(y_name) for _, trial in ranked], most)
    cells = tuple(
        tuple(
            [each for each, is_in in zip(ranked, in_row & in_column, strict=True) if is_in]
            for _, in_column in columns
        )
        for _, in_row in rows
    )
    in_columns, in_rows = (tuple(name for name, _ in each) for each in (columns, rows))
    return _Layout(x_name, "".join(further), in_columns, in_rows, cells)


def _bins(
    scale: SettingRange, values: Sequence[Any], most: int
) -> list[tuple[str, np.ndarray[Any, np.dtype[np.bool_]]]]:
    """Return parts of a setting's range, at most so many, with the trials (N,) that lie in each:
    the values of a choice, or intervals that hold as many trials each."""
    if scale.values:
        texts = [as_choice(value) if value is not None else None for value in values]
        present = [value for value in scale.values if as_choice(value) in texts]
        groups = np.array_split(np.arange(len(present)), min(most, len(present)))
        found = []
        for group in groups:
            chosen = {as_choice(present[index]) for index in group}
            label = ", ".join(str(present[index]) for index in group)
            found.append((label, np.array([text in chosen for text in texts], bool)))
        return found
    numbers = np.array([np.nan if value is None else float(value) for value in values])
    known = numbers[np.isfinite(numbers)]
    edges = np.unique(np.quantile(known, np.linspace(0.0, 1.0, most + 1)))
    if len(edges) < 2:
        return [(f"{edges[0]:.3g}", np.isfinite(numbers))]
    bins = []
    for index, (low, high) in enumerate(pairwise(edges)):
        is_last = index == len(edges) - 2
        inside = (numbers >= low) & ((numbers <= high) if is_last else (numbers < high))
        bins.append((f"{low:.3g} to {high:.3g}", inside))
    return bins


def _cell(trials: Sequence[_Ranked]) -> Cell | None:
    """Return the best of some trials of whose best epoch there are samples that can be read."""
    for rank, trial in trials:
        best, picture = trial.best, _best_samples(trial)
        if best and picture:
            with suppress(OSError):
                url = png_url(trial.record.folder.files.read(picture))
                return Cell(trial.trial_id, rank, best.value, best.epoch, url, len(trials))
    return None


def _best_samples(trial: TrialResult) -> Path | None:
    """Return the picture of a trial's samples at its best epoch: drawn at the end of its search,
    or while it was trained."""
    if trial.best is None:
        return None
    folder = trial.record.folder
    drawn = folder.samples_at(trial.best.epoch)
    if folder.files.exists(drawn):
        return drawn
    at_best = (r.pictures for r in trial.record.counted() if r.epoch == trial.best.epoch)
    return next((pictures[_PICTURE] for pictures in at_best if _PICTURE in pictures), None)
