"""Write the page of a search, or of several side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import Positional

from pipelines.cli.parsing import parse_settings
from pipelines.cli.stages import Call, finish
from pipelines.report.results import ReportResult
from pipelines.store.layout import default_store

ORDER, USAGE = 20, "report SEARCH …"


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write the page of a search, or of several side by side, as one HTML file: which trial won
    and why, the history, which settings matter, learning curves, what early stopping saved,
    samples, failures and cost. At any time, also while the search runs; nothing else is
    written."""

    searches: Positional[tuple[str, ...]]
    """Ids of searches, as `genpipe runs` shows them."""
    store: Path = field(default_factory=default_store)
    """Folder of all results; the default is the environment's GENPIPE_STORE, or runs."""
    output: Path | None = None
    """File to write; by default report.html in the folder of the search, of several in STORE."""
    json: bool = False
    """Print the result as one JSON object, and nothing else on stdout."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code."""
    settings = parse_settings(Report, "report", args)
    return finish(run(settings, Call()), settings, show)


def run(settings: Report, call: Call) -> ReportResult:
    """Write the page."""
    from pipelines.catalog.report import report  # light: imports jinja2

    return report(*settings.searches, store=settings.store, output=settings.output)


def show(result: ReportResult, settings: Report) -> None:
    """Print where the page is."""
    from pipelines.report.console import show_report  # light: imports rich

    show_report(result)
