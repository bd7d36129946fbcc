"""List what is recorded."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.cli.parsing import RecordedSettings, parse_settings, print_json

ORDER, USAGE = 6, "runs"


@dataclass(frozen=True, kw_only=True)
class Runs(RecordedSettings):
    """List recorded runs, the newest first."""

    experiment: str | None = None
    """Only runs of this MLflow experiment, such as vae-digits."""
    num: int = 30
    """How many."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code."""
    settings = parse_settings(Runs, "runs", args)
    from pipelines.catalog.runs import runs  # light: imports rich
    from pipelines.report.console import show_runs  # light: imports rich

    result = runs(
        store=settings.store,
        tracking_uri=settings.tracking_uri,
        experiment=settings.experiment,
        num=settings.num,
    )
    show_runs(result)
    print_json(settings, result.to_json())
    return result.exit_code
