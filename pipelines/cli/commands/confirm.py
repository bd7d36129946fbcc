"""Train a recorded config again with other seeds: was it good, or lucky?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, UseAppendAction

from gen_models.core.errors import require
from pipelines.cli.parsing import RecordedSettings, given_settings, parse_settings
from pipelines.cli.stages import Call, finish
from pipelines.config.labels import require_labels
from pipelines.config.search import Fuse, Search
from pipelines.report.results import SearchResult

ORDER, USAGE = 3, "confirm RUN"


@dataclass(frozen=True, kw_only=True)
class Confirm(RecordedSettings):
    """Train a recorded run's config again with other seeds, to tell a good config from a lucky
    one.

    Prints statistics of the metric over the seeds. The run's own seed is not among them, because
    it was selected for its result. Registers no model; `genpipe search --confirm` does."""

    run: Positional[str]
    """A run's id or name, a trial's, NAME@champion or models:/NAME/VERSION."""
    seeds: int = 50
    """How many seeds: those that follow the run's own."""
    data: str | None = None
    """The run's data at another path, npz:PATH or folder:PATH, if they were moved."""
    data_root: Path | None = None
    """Folder of torchvision's data sets; by default where the run found them."""
    download: bool = False
    """Download the data set if it is missing."""
    experiment: str | None = None
    """MLflow experiment in which the seeds are recorded; by default that of the run's family and
    data."""
    tag: Annotated[UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME=VALUE")] = ()
    """A tag of the seed study and its seeds in MLflow, as in team=vision; may be given more than
    once."""
    note: str | None = None
    """Markdown that describes the seed study, at the head of its description in MLflow."""
    address: str | None = None
    """Ray cluster to use; by default the environment's RAY_ADDRESS, or this machine alone."""
    fuse: Fuse = "auto"
    """Train this many seeds together on each device; off: start the run's workers for each."""
    max_concurrent: int | None = None
    """Seeds at once; by default as many as the cluster holds."""
    resume: str = ""
    """Resume the seed study of this id."""
    dry_run: bool = False
    """Make all checks, print the resolved config as a job file (with --json as JSON), and stop."""

    def __post_init__(self) -> None:
        require(self.seeds >= 2, "seeds", self.seeds, "an integer of at least 2")
        require_labels(self.experiment, self.tag, self.note)


def main(args: list[str]) -> int:
    """Run the command; return its exit code."""
    settings = parse_settings(Confirm, "confirm", args)
    call = Call(frozenset(given_settings(args)))
    if settings.dry_run:
        from pipelines.cli.dry_run import describe_or_save  # light: imports torch

        return describe_or_save(_study(settings, call))
    return finish(run(settings, call), settings, show)


def run(settings: Confirm, call: Call) -> SearchResult:
    """Train the config with the seeds, or resume doing so."""
    from pipelines.tuning.search import run_search  # light: imports torch and Ray

    return run_search(_study(settings, call), call.search_id)


def show(result: SearchResult, settings: Confirm) -> None:
    """Print the statistics over the seeds."""
    from pipelines.report.console import show_search  # light: imports rich

    show_search(result, str(settings.store))


def _study(settings: Confirm, call: Call) -> Search:
    """Return the seed study that is meant, which may be one to resume."""
    from pipelines.tuning.replication import study_of_run  # light: imports torch and Ray
    from pipelines.tuning.search import resolve_search  # light: imports torch and Ray

    names = ("store", "tracking_uri", "download", "address", "max_concurrent", "resume")
    labels = ("experiment", "tag", "note")
    all_names = (*names, *labels, "dry_run", "json")
    where: dict[str, Any] = {name: getattr(settings, name) for name in all_names}
    if settings.data is not None:
        where["data"] = settings.data
    if settings.data_root is not None:
        where["data_root"] = settings.data_root
    study = study_of_run(settings.run, settings.seeds, settings.fuse, where)
    given = {*call.given, *(("trials",) if "seeds" in call.given else ())}  # its seeds are trials
    return resolve_search(study, given, call.search_id)
