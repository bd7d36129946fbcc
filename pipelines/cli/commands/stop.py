"""End a running search or training after its running epochs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import Positional

from pipelines.cli.parsing import parse_settings
from pipelines.cli.stages import finish
from pipelines.report.results import StopResult
from pipelines.store.layout import default_store

ORDER, USAGE = 22, "stop SEARCH"


@dataclass(frozen=True, kw_only=True)
class Stop:
    """End a search, a seed study or a training run that another process runs, also on another
    machine that sees the store.

    It ends after the epochs that run, with what it has found: a search has its champion and its
    report. Its trials that were running go on if it is resumed."""

    search: Positional[str]
    """The id of a search or a seed study, or the name of a run."""
    wait: bool = False
    """Wait until it has ended."""
    store: Path = field(default_factory=default_store)
    """Folder of all results; the default is the environment's GENPIPE_STORE, or runs."""
    json: bool = False
    """Print the result as one JSON object, and nothing else on stdout."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code."""
    settings = parse_settings(Stop, "stop", args)
    from pipelines.catalog.stop import stop  # light: --help need not load it

    result = stop(settings.search, store=settings.store, wait=settings.wait)
    return finish(result, settings, show)


def show(result: StopResult, settings: Stop) -> None:
    """Print what was asked for, or how it has ended."""
    from pipelines.report.console import show_stop  # light: imports rich

    show_stop(result)
