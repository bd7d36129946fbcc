"""Show a family's best recorded config, and the command that trains it again."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

import gen_models
from pipelines.cli.parsing import RecordedSettings, parse_settings
from pipelines.cli.stages import Call, finish
from pipelines.report.results import BestResult

ORDER, USAGE = 7, "best FAMILY"


@dataclass(frozen=True, kw_only=True)
class Best(RecordedSettings):
    """Rank the recorded runs of a family; show the best one's config and its command."""

    family: Positional[str]
    """The family."""
    data: str | None = None
    """Only runs on this data set."""
    metric: str | None = None
    """Rank by this metric; by default the family's own."""
    key: str | None = None
    """Only runs of this comparison key, eight digits that `genpipe runs` shows: runs of different
    keys cannot be compared, because their data, likelihood or metric differ. By default the newest
    run's."""
    num: int = 5
    """How many."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code."""
    settings = parse_settings(Best, "best", args)
    return finish(run(settings, Call()), settings, show)


def run(settings: Best, call: Call) -> BestResult:
    """Rank the recorded runs."""
    gen_models.space_module(settings.family)  # raises if there is none, without torch
    from pipelines.catalog.runs import best  # light: imports rich

    return best(
        settings.family,
        data=settings.data,
        metric=settings.metric,
        key=settings.key,
        num=settings.num,
        store=settings.store,
        tracking_uri=settings.tracking_uri,
    )


def show(result: BestResult, settings: Best) -> None:
    """Print the ranking."""
    from pipelines.report.console import show_best  # light: imports rich

    show_best(result)
