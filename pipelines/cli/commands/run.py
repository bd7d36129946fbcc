"""Run a job file: one command, or several stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, UseAppendAction

from pipelines.cli.jobs.definition import Job, Stage, parse_override, read_job
from pipelines.cli.parsing import parse_settings
from pipelines.cli.stages import finish
from pipelines.report.results import JobFileResult, Result
from pipelines.store.secrets import redact

ORDER, USAGE = 12, "run JOB.yaml"


@dataclass(frozen=True, kw_only=True)
class Run:
    """Run the command of a job file, or its stages one after the other; a job that was stopped
    goes on where it was. docs/jobs.md says what such a file holds; `genpipe search … --save
    JOB.yaml` writes one."""

    file: Positional[Path]
    """The job file."""
    overrides: Annotated[UseAppendAction[tuple[str, ...]], tyro.conf.arg(name="set")] = ()
    """NAME=VALUE: another value of a setting, as YAML; may be given more than once. Of a stage
    STAGE.NAME=VALUE, such as search.trials=4."""
    anew: bool = False
    """Begin with the first stage, whatever has ended."""
    dry_run: bool = False
    """Check the file, print it with the values of --set, and stop."""
    json: bool = False
    """Print the result as one JSON object, and nothing else on stdout."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code."""
    settings = parse_settings(Run, "run", args)
    job = parse_job(settings)
    if settings.dry_run:
        print(redact(job.text()), end="")
        return 0
    from pipelines.cli.jobs.runner import run_stages  # light: imports rich

    result = run_stages(job, anew=settings.anew, show=None if settings.json else _show_stage)
    return finish(result, settings, show)


def show(result: JobFileResult, settings: Run) -> None:
    """Print how the stages ended. A single one that has just run has printed its result."""
    from pipelines.report.console import show_job  # light: imports rich

    if len(result.stages) + len(result.left) > 1 or not all(
        stage.is_new for stage in result.stages.values()
    ):
        show_job(result)


def parse_job(settings: Run) -> Job:
    """Return the job that is meant. Raises `InputError`."""
    return read_job(settings.file, dict(map(parse_override, settings.overrides)))


def _show_stage(stage: Stage, result: Result, settings: Any) -> None:
    stage.command.show(result, settings)
