"""Search over many configs, register the best."""

from __future__ import annotations

from pipelines.cli.parsing import given_settings, parse_run
from pipelines.cli.stages import Call, finish
from pipelines.config.search import Search
from pipelines.report.results import SearchResult

ORDER, USAGE = 2, "search FAMILY"


def main(args: list[str]) -> int:
    """Run the command; return its exit code."""
    settings = parse_run(Search, "search", args)
    if settings is None:
        return 0
    call = Call(frozenset(given_settings(args)))
    if settings.dry_run or settings.save:
        from pipelines.cli.dry_run import describe_or_save  # light: imports torch

        return describe_or_save(_resolved(settings, call))
    return finish(run(settings, call), settings, show)


def run(settings: Search, call: Call) -> SearchResult:
    """Search, or resume a search."""
    from pipelines.tuning.search import run_search  # light: imports torch and Ray

    return run_search(_resolved(settings, call), call.search_id)


def show(result: SearchResult, settings: Search) -> None:
    """Print the ranking and the champion."""
    from pipelines.report.console import show_search  # light: imports rich

    show_search(result, str(settings.store))


def _resolved(settings: Search, call: Call) -> Search:
    from pipelines.tuning.search import resolve_search  # light: imports torch and Ray

    return resolve_search(settings, call.given, call.search_id)
