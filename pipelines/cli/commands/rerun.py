"""Repeat a recorded run alone, and compare it with what is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from pipelines.cli.parsing import RecordedSettings, parse_settings
from pipelines.cli.stages import Call, finish
from pipelines.report.results import RerunResult

ORDER, USAGE = 11, "rerun RUN"


@dataclass(frozen=True, kw_only=True)
class Rerun(RecordedSettings):
    """Train a recorded run or trial again, alone and without Ray, and compare every epoch's
    metrics and weights with what is recorded, in the store or in MLflow alone: "equal", or what
    differs. Records nothing. A trial of population based training is repeated by its schedule."""

    run: Positional[str]
    """A run's id or name, a trial's, NAME@champion or models:/NAME/VERSION."""
    data: str | None = None
    """The run's data at another path, npz:PATH or folder:PATH, if they were moved."""
    data_root: Path | None = None
    """Folder of torchvision's data sets; by default where the run found them."""
    download: bool = False
    """Download the data set, or Inception's weights, if they are missing."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code."""
    settings = parse_settings(Rerun, "rerun", args)
    return finish(run(settings, Call()), settings, show)


def run(settings: Rerun, call: Call) -> RerunResult:
    """Repeat the run."""
    from pipelines.catalog.rerun import rerun  # light: imports torch

    return rerun(
        settings.run,
        store=settings.store,
        tracking_uri=settings.tracking_uri,
        data=settings.data,
        data_root=settings.data_root,
        download=settings.download,
    )


def show(result: RerunResult, settings: Rerun) -> None:
    """Print whether it is equal."""
    from pipelines.report.console import show_rerun  # light: imports rich

    show_rerun(result)
