"""List what is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro
from tyro.conf import UseAppendAction

from pipelines.cli.parsing import RecordedSettings, parse_settings
from pipelines.cli.stages import finish
from pipelines.report.results import RunsResult
from pipelines.store.journal import RunKind

ORDER, USAGE = 6, "runs"


@dataclass(frozen=True, kw_only=True)
class Runs(RecordedSettings):
    """List recorded runs, the newest first."""

    experiment: str | None = None
    """Only runs of this MLflow experiment, such as vae-digits."""
    kind: RunKind | None = None
    """Only searches, trials of searches, single runs, or seed studies (confirmation)."""
    family: str | None = None
    """Only runs of this family."""
    tag: Annotated[UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE")] = ()
    """Only runs with this tag, as it was given with --tag; may be given more than once."""
    where: str | None = None
    """Only runs of which a condition is true, such as 'metric < 25 and model.latent_dim <= 16'.
    metric is the value that a run is ranked by; a setting stands by its name, and so do another
    metric, as val/fd, and epoch, kind, outcome, name, experiment."""
    num: int = 30
    """How many."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code."""
    settings = parse_settings(Runs, "runs", args)
    from pipelines.catalog.runs import runs  # light: imports rich

    result = runs(
        store=settings.store,
        tracking_uri=settings.tracking_uri,
        experiment=settings.experiment,
        kind=settings.kind,
        family=settings.family,
        tag=settings.tag,
        where=settings.where,
        num=settings.num,
    )
    return finish(result, settings, show)


def show(result: RunsResult, settings: Runs) -> None:
    """Print the table."""
    from pipelines.report.console import show_runs  # light: imports rich

    show_runs(result, filtered=any((settings.kind, settings.family, settings.tag, settings.where)))
