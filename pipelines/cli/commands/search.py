"""Search over many configs, register the best."""

from __future__ import annotations

from pipelines.cli.parsing import given_settings, parse_run, print_json
from pipelines.config.search import Search

ORDER, USAGE = 2, "search FAMILY"


def main(args: list[str]) -> int:
    """Run the command; return its exit code."""
    run = parse_run(Search, "search", args)
    if run is None:
        return 0
    from pipelines.tuning.search import resolve_search  # light: imports torch and Ray

    return run_or_describe(resolve_search(run, given_settings(args)))


def run_or_describe(run: Search) -> int:
    """Run a search and print its result, or print its config if that is asked for."""
    if run.dry_run:
        from pipelines.cli.dry_run import describe_run  # light: imports torch

        print(describe_run(run))
        return 0
    from pipelines.report.console import show_search  # light: imports rich
    from pipelines.tuning.search import run_search  # light: imports torch and Ray

    result = run_search(run)
    show_search(result, str(run.store))
    print_json(run, result.to_json())
    return result.exit_code
