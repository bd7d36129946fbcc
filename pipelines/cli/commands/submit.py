"""Run a command as a job on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gen_models.core.errors import InputError, require
from pipelines.cli.commands.confirm import Confirm
from pipelines.cli.commands.run import Run as RunFile
from pipelines.cli.commands.run import parse_job
from pipelines.cli.jobs.definition import Job
from pipelines.cli.parsing import parse_run, parse_settings
from pipelines.config.run import Run, Train
from pipelines.config.search import Search

ORDER, USAGE = 10, "submit -- COMMAND"

_CHECKS: dict[str, Callable[[list[str]], Run | Confirm | Job | None]] = {
    "train": lambda args: parse_run(Train, "train", args),
    "search": lambda args: parse_run(Search, "search", args),
    "confirm": lambda args: parse_settings(Confirm, "confirm", args),
    "run": lambda args: parse_job(parse_settings(RunFile, "run", args)),
}
"""The commands that can be submitted, and what checks their arguments here."""


@dataclass(frozen=True, kw_only=True)
class Submit:
    """Run a command as a job on a Ray cluster: `genpipe submit [settings] -- search vae …`."""

    address: str | None = None
    """The cluster's job server; by default http://127.0.0.1:8265."""
    wait: bool = True
    """Wait for the job and show its output."""
    working_dir: Path = Path(".")
    """The project's folder; it is sent to the cluster."""
    submission_id: str | None = None
    """The job's id; by default Ray generates one."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code."""
    at = args.index("--") if "--" in args else len(args)
    settings, command = parse_settings(Submit, "submit", args[:at]), args[at + 1 :]
    if not command:
        raise InputError("no command to submit: expected one after --, as in -- search vae")
    if command[0] not in _CHECKS:
        raise InputError(f"cannot submit {command[0]!r}: expected one of {', '.join(_CHECKS)}")
    if submitted := _CHECKS[command[0]](command[1:]):
        _require_absolute(submitted)
    if command[0] == "run":
        command = _with_sent_file(command, settings.working_dir)
    from pipelines.cluster.jobs import submit  # light: imports Ray

    return submit(
        command,
        address=settings.address,
        wait=settings.wait,
        working_dir=settings.working_dir,
        submission_id=settings.submission_id,
    ).exit_code


def _with_sent_file(command: list[str], working_dir: Path) -> list[str]:
    """Return the command of a job file with the file's path in the folder that is sent. Raises
    `InputError` if it is not in it."""
    file = parse_settings(RunFile, "run", command[1:]).file
    folder, path = working_dir.resolve(), file.resolve()
    expected = f"a file below {folder}, the folder that is sent to the cluster; see --working-dir"
    require(path.is_relative_to(folder), "file", str(file), expected)
    sent = str(path.relative_to(folder))
    return [sent if word == str(file) else word for word in command]


def _require_absolute(settings: Run | Confirm | Job) -> None:
    """Refuse paths that the job would look for in its working directory, a copy on one node that
    is removed after the job."""
    lost = "because the job's working directory is a copy that is removed after the job"
    store, uri = settings.store, settings.tracking_uri or ""
    expected = f"the absolute path of a folder that every node mounts, {lost}"
    require(store.expanduser().is_absolute(), "store", str(store), expected)
    scheme, _, file = uri.partition(":///")
    is_relative = scheme.startswith("sqlite") and not file.startswith("/")
    expected = f"a server, or a database with an absolute path, sqlite:////FILE, {lost}"
    require(not is_relative, "tracking_uri", uri, expected)
