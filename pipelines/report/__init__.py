"""A search's report: one page that stands alone, made from the search's journals.

trials      what the page shows of each trial
figures     its diagrams, as PNG files
page        the page itself
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipelines.config.run import Mode, Objective
from pipelines.report.html import render
from pipelines.report.trials import read_trials
from pipelines.store.journal import write_whole


def write_report(
    folder: Path,
    metric: str,
    mode: Mode,
    searched: Sequence[str],
    further: Sequence[Objective] = (),
) -> Path:
    """Write `report.html` into a search's folder, from the trials that have ended; its path.

    `searched`: the settings that differ between trials, as `standings` takes them. `further`:
    objectives beside the metric that ranks, with which the page shows a Pareto front.
    """
    path = folder / "report.html"
    trials = read_trials(folder, metric, mode, searched)
    write_whole(path, render(folder, trials, metric, mode, further))
    return path
