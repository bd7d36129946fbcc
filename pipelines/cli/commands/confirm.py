"""Train a recorded config again with other seeds: was it good, or lucky?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from gen_models.core.errors import require
from pipelines.cli.commands.search import run_or_describe
from pipelines.cli.parsing import RecordedSettings, given_settings, parse_settings
from pipelines.config.search import Fuse

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
    address: str | None = None
    """Ray cluster to use; by default the environment's RAY_ADDRESS, or this machine alone."""
    fuse: Fuse = "auto"
    """Train this many seeds together on each device; off: start the run's workers for each."""
    max_concurrent: int | None = None
    """Seeds at once; by default as many as the cluster holds."""
    resume: str = ""
    """Resume the seed study of this id."""
    dry_run: bool = False
    """Print the resolved config, and stop."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code."""
    settings = parse_settings(Confirm, "confirm", args)
    require(settings.seeds >= 2, "seeds", settings.seeds, "an integer of at least 2")
    from pipelines.tuning.replication import study_of_run  # light: imports torch and Ray
    from pipelines.tuning.search import resolve_search  # light: imports torch and Ray

    names = ("store", "tracking_uri", "download", "address", "max_concurrent", "resume")
    where: dict[str, Any] = {name: getattr(settings, name) for name in (*names, "dry_run", "json")}
    if settings.data is not None:
        where["data"] = settings.data
    if settings.data_root is not None:
        where["data_root"] = settings.data_root
    run = study_of_run(settings.run, settings.seeds, settings.fuse, where)
    given = given_settings(args)
    if settings.resume:  # a study's seeds are its trials
        given |= {"trials"} if "seeds" in given else set()
        run = resolve_search(run, given)
    return run_or_describe(run)
