"""Submits a command as a Ray job, which runs on the cluster whether or not this machine stays.

The project in the working directory is sent with the job, so the code that runs is the code at
hand, and not the one that was installed when the cluster was started.
"""

import asyncio
import logging
import os
import re
import secrets
import shlex
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientError
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from gen_models.core.errors import InputError, require
from pipelines.cluster.connection import (
    REACH_SECONDS,
    require_reachable,
    token_authentication,
)
from pipelines.cluster.environment import environment
from pipelines.cluster.packages import family_packages
from pipelines.store.layout import STORE_VARIABLE
from pipelines.store.secrets import hide, was_given_password

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
"""Files of the working directory that are not sent, beside those that `.gitignore` names."""

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended (128 + SIGINT)."""

LOST = 1
"""Exit code of a command that lost the cluster."""

UNKNOWN = "UNKNOWN"
"""Status of a job whose cluster does not answer."""

_SUBMISSION_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
"""Ray puts a job's id into names of files and into URLs."""

PROBE_SECONDS = 20.0
"""Time between two checks, while the log is followed, that the job server is still there."""

START_SECONDS = 120.0
"""Time for which a cluster that is still starting is asked again to take a job."""

STOP_SECONDS = 25
"""Time for a job that is stopped to close its runs before it is killed; Ray's default is 3 s."""

_STARTING = "No available agent"
"""What Ray answers while the head's agent, which starts jobs, has not registered."""

MAX_FAILED_PROBES = 3
"""Failed checks in a row after which the cluster counts as lost."""

_CLUSTER_ERRORS = (ClientError, OSError, RuntimeError, AuthenticationError)
"""Errors that Ray's client raises where the job server is gone, or answers with an error.

`requests`' errors are `OSError`s. A response with an error status is a `RuntimeError`.
"""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobResult:
    """A submitted job, in the state in which it was last seen."""

    job_id: str
    """Its submission id."""
    status: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED; UNKNOWN if the cluster was lost."""
    exit_code: int
    """The job's own once it has ended; 0 if it was not waited for; 130 after Ctrl-C; 1 if the
    cluster was lost."""
    message: str
    """Ray's description of the status; if the cluster was lost, what happened."""


def submit(
    command: Sequence[str],
    address: str | None = None,
    wait: bool = True,
    working_dir: Path = Path("."),
    submission_id: str | None = None,
) -> JobResult:
    """Run `genpipe <command>` as a Ray job and, with `wait`, print its log until it ends.

    `address` is the dashboard's URL; without it `RAY_API_SERVER_ADDRESS`, `RAY_ADDRESS` and
    `http://127.0.0.1:8265` are tried. The job runs on the head node, where Ray places a job that
    asks for no resources of its own. Its log goes to stdout, everything else to the logger.

    Ctrl-C stops the following of the log, not the job. If the cluster is lost after the job was
    sent, an error is logged that says how to follow or stop the job, and the result has the
    status UNKNOWN.

    Raises `InputError` for an empty command, a working directory that does not exist, a wrong or
    used submission id, and a cluster that cannot be reached or refuses the token or the job.
    """
    require(len(command) > 0, "command", list(command), "a genpipe command, such as search")
    for word in command:
        variables = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or GENPIPE_NOTIFY_URL,"
        shown = (
            "no password and no URL for notices, because Ray shows a job's command: set "
            f"{variables} on the cluster's nodes"
        )
        require(not was_given_password(word), "command", hide(word), shown)
    require(working_dir.is_dir(), "working_dir", str(working_dir), "the project's directory")
    if submission_id is not None:
        named = _SUBMISSION_ID.fullmatch(submission_id)
        expected = "1 to 100 letters, digits, dots, dashes and underscores, no dot first"
        require(named is not None, "submission_id", submission_id, expected)
    url = _dashboard_url(address)
    client = _client(url)
    if submission_id is not None:
        _require_unused(client, url, submission_id)
    # Chosen here, so that it is known also if the cluster is lost before it answers.
    job_id = submission_id or f"genpipe_{secrets.token_hex(8)}"
    try:
        _send(client, url, command, working_dir, job_id)
    except (ClientError, OSError) as error:
        return _lost(url, job_id, error, "while the job was sent: it may run or not")
    _log.info("job %s at %s", job_id, url)
    if wait:
        return _follow(client, url, job_id)
    _log.info("%s", _instructions(url, job_id))
    return _state(client, url, job_id, exit_code=0)


def _dashboard_url(address: str | None) -> str:
    """Return the URL of the job server.

    Raises `InputError` if the address is not a URL, or nothing answers there.
    """
    field, value = "address", address
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        if not value:
            field, value = name, os.environ.get(name)
    if not value:
        field, value = "address", DEFAULT_ADDRESS
    require(_is_url(value), field, value, f"the dashboard's URL, such as {DEFAULT_ADDRESS}")
    require_reachable(field, value, *_host_and_port(value))
    return value.rstrip("/")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # such as of an IPv6 address that does not end, or a port beyond 65,535
        return False


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _client(url: str) -> JobSubmissionClient:
    """Connect Ray's client to the job server at `url`.

    Raises `InputError` if the server is not Ray's, or refuses the token.
    """
    try:
        # Ray prefers this variable, and RAY_ADDRESS, to the address that it is given.
        with token_authentication(), environment({"RAY_API_SERVER_ADDRESS": url}):
            return JobSubmissionClient(url)
    except AuthenticationError as error:
        mend = "the cluster's token in RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
        reason = f"the cluster refuses our token; set RAY_AUTH_MODE=token and put {mend}"
        raise InputError(f"address = {url!r}: {reason}") from error
    # KeyError, TypeError and ValueError: the answer is not that of a Ray job server
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"address = {url!r}: no Ray job server there: {error}") from error


def _require_unused(client: JobSubmissionClient, url: str, submission_id: str) -> None:
    """Raise `InputError` if the cluster has had a job of this id, or does not answer."""
    try:
        used = {job.submission_id for job in client.list_jobs()}
    except _CLUSTER_ERRORS as error:
        reason = f"the cluster did not list its jobs, and no job was sent: {error}"
        raise InputError(f"address = {url!r}: {reason}") from error
    expected = "an id that no job of this cluster has had"
    require(submission_id not in used, "submission_id", submission_id, expected)


def _send(
    client: JobSubmissionClient, url: str, command: Sequence[str], working_dir: Path, job_id: str
) -> None:
    """Upload the project and start the job.

    Raises `InputError` if the cluster answers that it does not take the job, and `OSError` or
    `ClientError` if it does not answer.
    """
    try:
        with family_packages() as families:
            store = os.environ.get(STORE_VARIABLE)  # for a command that was checked with it
            runtime_env: dict[str, Any] = {
                "working_dir": str(working_dir.resolve()),
                "excludes": list(EXCLUDES),
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
                | ({STORE_VARIABLE: store} if store else {}),
            }
            if families:
                runtime_env["py_modules"] = [str(path) for path in families]
            _start_job(
                client,
                url,
                entrypoint=shlex.join(["python", "-m", "pipelines", *command]),
                runtime_env=runtime_env,
                metadata={"genpipe": shlex.join(command)},
                submission_id=job_id,
            )
    except (RuntimeError, AuthenticationError) as error:
        raise InputError(f"address = {url!r}: the cluster refuses the job: {error}") from error


def _start_job(client: JobSubmissionClient, url: str, **job: Any) -> None:
    """Start the job, and ask again for up to `START_SECONDS` if the cluster is still starting.

    Raises `RuntimeError` if the cluster does not take the job.
    """
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            client.submit_job(**job)
            return
        except RuntimeError as error:
            if _STARTING not in str(error) or time.monotonic() > deadline:
                raise
            _log.info("the cluster at %s is still starting; asking it again", url)
            time.sleep(1.0)  # the cluster itself has waited for 10 s before it answered


def _follow(client: JobSubmissionClient, url: str, job_id: str) -> JobResult:
    """Print the job's log until the job ends, the user presses Ctrl-C or the cluster is lost."""
    try:
        asyncio.run(_print_log_while_reachable(client, url, job_id))
        while not client.get_job_status(job_id).is_terminal():
            time.sleep(0.5)
    except KeyboardInterrupt:
        _log.info("the job goes on\n%s", _instructions(url, job_id))
        return _state(client, url, job_id, exit_code=INTERRUPTED)
    except BrokenPipeError:  # stdout is closed
        raise
    except _CLUSTER_ERRORS as error:
        return _lost(url, job_id, error, "while the job's log was followed: the job may go on")
    return _state(client, url, job_id, exit_code=None)


async def _print_log_while_reachable(client: JobSubmissionClient, url: str, job_id: str) -> None:
    """Print the log until it ends. Raises one of `_CLUSTER_ERRORS` if the cluster is lost.

    A connection that is cut without notice, such as that of a VPN, stays open and silent like
    that of a job which writes nothing. The second task tells these two apart.
    """
    log = asyncio.create_task(_print_log(client, job_id))
    probe = asyncio.create_task(_probe(*_host_and_port(url)))
    try:
        done, _ = await asyncio.wait({log, probe}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        log.cancel()
        probe.cancel()
        await asyncio.gather(log, probe, return_exceptions=True)


async def _print_log(client: JobSubmissionClient, job_id: str) -> None:
    async for lines in client.tail_job_logs(job_id):
        sys.stdout.write(lines)
        sys.stdout.flush()


async def _probe(host: str, port: int) -> None:
    """Connect to the job server at intervals. Raises `OSError` after several failures in a row."""
    failures = 0
    while True:
        await asyncio.sleep(PROBE_SECONDS)
        try:
            connection = asyncio.open_connection(host, port)
            _, writer = await asyncio.wait_for(connection, REACH_SECONDS)
            writer.close()
            failures = 0
        except OSError:
            failures += 1
            if failures == MAX_FAILED_PROBES:
                raise


def _state(client: JobSubmissionClient, url: str, job_id: str, exit_code: int | None) -> JobResult:
    """Ask for the job's state. With `exit_code` None, the result has the job's own exit code.

    If the cluster is lost, the status is UNKNOWN and the exit code is `exit_code` or 1.
    """
    try:
        # Ray's requests have no timeout, and wait for minutes where packets are dropped.
        socket.create_connection(_host_and_port(url), REACH_SECONDS).close()
        details = client.get_job_info(job_id)
    except _CLUSTER_ERRORS as error:
        lost = "while the job's state was asked for: the job may go on"
        return _lost(url, job_id, error, lost, LOST if exit_code is None else exit_code)
    status = details.status.value
    if exit_code is None:
        exit_code = 0 if status == "SUCCEEDED" else _shell_code(details.driver_exit_code)
    return JobResult(job_id, status, exit_code, details.message or "")


def _lost(url: str, job_id: str, error: Exception, when: str, exit_code: int = LOST) -> JobResult:
    """Log that the cluster was lost and how to follow or stop the job; return the result."""
    reason = " ".join(str(error).split()) or type(error).__name__
    message = f"lost the cluster at {url} {when} ({reason})\n{_instructions(url, job_id)}"
    _log.error("%s", message)
    return JobResult(job_id, UNKNOWN, exit_code, message)


def _shell_code(driver_exit_code: int | None) -> int:
    """Return a failed job's exit code as a shell does: 128 + n for signal n; 1 if unknown."""
    if not driver_exit_code:
        return 1
    return 128 - driver_exit_code if driver_exit_code < 0 else driver_exit_code


def _instructions(url: str, job_id: str) -> str:
    where = f"{shlex.quote(job_id)} --address {shlex.quote(url)}"
    return f"follow: ray job logs --follow {where}\nstop:   ray job stop {where}"
