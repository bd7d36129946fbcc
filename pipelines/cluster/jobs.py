"""The same command as a Ray job: the cluster's head runs it, whatever becomes of this machine.

The project in the working directory travels with the job, so that what runs is the code at
hand, and not what was installed when the cluster was brought up.
"""

import asyncio
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gen_models.core.errors import InputError, require
from pipelines.cluster.connection import environment, require_reachable, use_token

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"

EXCLUDES = (
    "/.git/",
    "/.venv/",
    "/build/",
    "/dist/",
    "/mlruns/",
    "/runs/",
    "__pycache__/",
    ".*_cache/",
    "*.egg-info/",
    "*.db",
)
"""What of the working directory stays here, beside what `.gitignore` names."""

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended (128 + SIGINT)."""


@dataclass(frozen=True)
class JobResult:
    """A submitted job, as far as it was watched."""

    job_id: str
    """Its submission id."""
    status: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED, when last asked."""
    exit_code: int
    """The job's own once it has ended; 0 if it was not waited for; 130 after Ctrl-C."""
    message: str
    """What Ray says of the status."""


def submit(
    command: Sequence[str],
    address: str | None = None,
    wait: bool = True,
    working_dir: Path = Path("."),
    submission_id: str | None = None,
) -> JobResult:
    """Run `genpipe <command>` as a Ray job and, if `wait`, print its log until it ends.

    `address` is the dashboard's URL; without one `RAY_API_SERVER_ADDRESS`, `RAY_ADDRESS` and
    `http://127.0.0.1:8265` are tried. Ctrl-C ends the watching, not the job. The job is placed
    on the head node, where Ray places a job that asks for no resources of its own.

    Raises `InputError` for an empty command, a working directory that is none, a used
    submission id, and a cluster that is out of reach or refuses the token; `ConnectionError`
    if the cluster is lost while its log is followed.
    """
    require(len(command) > 0, "command", list(command), "a genpipe command, such as search")
    require(working_dir.is_dir(), "working_dir", str(working_dir), "the project's directory")
    url = _dashboard_url(address)
    client = _client(url)
    if submission_id is not None:
        used = {job.submission_id for job in client.list_jobs()}
        expected = "an id that no job of this cluster has had"
        require(submission_id not in used, "submission_id", submission_id, expected)
    job_id = client.submit_job(
        entrypoint=shlex.join(["python", "-m", "pipelines", *command]),
        runtime_env={"working_dir": str(working_dir.resolve()), "excludes": list(EXCLUDES)},
        metadata={"genpipe": shlex.join(command)},
        submission_id=submission_id,
    )
    print(f"job {job_id} at {url}", flush=True)
    if wait:
        return _watch(client, url, job_id)
    print(_instructions(url, job_id))
    return _result(client, job_id, exit_code=0)


def _dashboard_url(address: str | None) -> str:
    """The URL to submit to.

    Raises `InputError` if the address is no URL, or nothing answers there.
    """
    field, value = "address", address
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        if not value:
            field, value = name, os.environ.get(name)
    if not value:
        field, value = "address", DEFAULT_ADDRESS
    parts = urlsplit(value)
    is_url = parts.scheme in ("http", "https") and parts.hostname is not None
    require(is_url, field, value, f"the dashboard's URL, such as {DEFAULT_ADDRESS}")
    default_port = 443 if parts.scheme == "https" else 80
    require_reachable(field, value, parts.hostname or "", parts.port or default_port)
    return value.rstrip("/")


def _client(url: str) -> "JobSubmissionClient":
    """Ray's client of the job server at `url`.

    Raises `InputError` if the server is no Ray's, or refuses the token.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient
    from requests import RequestException

    try:
        use_token()
        # Ray prefers these variables to the address that it is given.
        with environment({"RAY_API_SERVER_ADDRESS": url}):
            return JobSubmissionClient(url)
    except AuthenticationError as error:
        mend = "the cluster's token in RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
        reason = f"the cluster refuses our token; set RAY_AUTH_MODE=token and put {mend}"
        raise InputError(f"address = {url!r}: {reason}") from error
    except (ConnectionError, RequestException, RuntimeError) as error:
        raise InputError(f"address = {url!r}: no Ray job server there: {error}") from error


def _watch(client: "JobSubmissionClient", url: str, job_id: str) -> JobResult:
    """Print the job's log until the job ends or the user has seen enough."""
    from aiohttp import ClientError

    try:
        asyncio.run(_print_log(client, job_id))
        while not client.get_job_status(job_id).is_terminal():
            time.sleep(0.5)
    except KeyboardInterrupt:
        print(f"\nThe job goes on.\n{_instructions(url, job_id)}")
        return _result(client, job_id, exit_code=INTERRUPTED)
    except (ClientError, OSError, RuntimeError) as error:
        lost = f"lost the cluster at {url} ({error}); the job may go on"
        raise ConnectionError(f"{lost}\n{_instructions(url, job_id)}") from error
    return _result(client, job_id, exit_code=None)


async def _print_log(client: "JobSubmissionClient", job_id: str) -> None:
    async for lines in client.tail_job_logs(job_id):
        print(lines, end="", flush=True)


def _result(client: "JobSubmissionClient", job_id: str, exit_code: int | None) -> JobResult:
    """The job as it stands; `exit_code` None means the job's own."""
    details = client.get_job_info(job_id)
    status = details.status.value
    if exit_code is None:
        own = details.driver_exit_code
        exit_code = 0 if status == "SUCCEEDED" else _shell_code(own)
    return JobResult(job_id, status, exit_code, details.message or "")


def _shell_code(own: int | None) -> int:
    """What a shell would say of a failed command: 128 + n for signal n, 1 if nothing is known."""
    if not own:
        return 1
    return 128 - own if own < 0 else own


def _instructions(url: str, job_id: str) -> str:
    where = f"{shlex.quote(job_id)} --address {shlex.quote(url)}"
    return f"follow: ray job logs --follow {where}\nstop:   ray job stop {where}"
