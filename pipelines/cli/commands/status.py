"""Show what runs, how far it is and until when."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import Positional

from gen_models.core.errors import require
from pipelines.cli.parsing import parse_settings
from pipelines.cli.stages import finish
from pipelines.report.results import StatusResult
from pipelines.store.layout import default_store

ORDER, USAGE = 21, "status [SEARCH]"


@dataclass(frozen=True, kw_only=True)
class Status:
    """Show the searches and trainings that run, or one of them: how far it is, at what rate, until
    when, its best value so far, and what is left of its budgets. Reads journals alone, so it
    answers at once and disturbs nothing."""

    search: Positional[str | None] = None
    """The id of a search or a seed study, or the name of a run; by default all that run."""
    watch: float | None = None
    """Show it again every so many seconds, until nothing runs or Ctrl-C."""
    store: Path = field(default_factory=default_store)
    """Folder of all results; the default is the environment's GENPIPE_STORE, or runs."""
    json: bool = False
    """Print the result as one JSON object, and nothing else on stdout; with --watch, one line each
    time."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code."""
    settings = parse_settings(Status, "status", args)
    every = settings.watch
    fits = every is None or every > 0
    require(fits, "watch", every, "a number of seconds above 0")
    from pipelines.catalog.status import status  # light: --help need not load it

    while True:
        result = status(settings.search, store=settings.store)
        finish(result, settings, show)
        if every is None or not any(each.running for each in result.runs):
            return result.exit_code
        time.sleep(every)


def show(result: StatusResult, settings: Status) -> None:
    """Print the table."""
    from pipelines.report.console import show_status  # light: imports rich

    show_status(result, str(settings.store), clear=settings.watch is not None)
