"""Record everything anew in MLflow from the journals."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.cli.parsing import RecordedSettings, parse_settings
from pipelines.cli.stages import finish
from pipelines.report.results import SyncResult

ORDER, USAGE = 9, "sync"


@dataclass(frozen=True, kw_only=True)
class Sync(RecordedSettings):
    """Record all runs of a store that MLflow lacks, from their journals: after MLflow's database
    was deleted or replaced, or to move to another --tracking-uri. Registered models and the alias
    champion are recorded too."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code."""
    settings = parse_settings(Sync, "sync", args)
    from pipelines.catalog.sync import sync  # light: imports sqlalchemy

    result = sync(store=settings.store, tracking_uri=settings.tracking_uri)
    return finish(result, settings, show)


def show(result: SyncResult, settings: Sync) -> None:
    """Print how much was recorded."""
    from pipelines.report.console import show_sync  # light: imports rich

    show_sync(result)
