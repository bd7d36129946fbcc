"""Submission of jobs: wrong arguments, and a job server that is lost at each stage.

The job server is a small one on loopback with the requests of Ray's client. Jobs on a real one are
tested in tests/integration.
"""

import asyncio
import io
import os
import signal
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from support.family_package import write_family_package

from gen_models.core.errors import InputError
from pipelines.cluster import jobs
from pipelines.cluster.environment import environment
from pipelines.cluster.jobs import JobResult, submit


class JobServer:
    """A job server with one job, whose behaviour a test sets; it stops for good in `disappear`."""

    def __init__(self) -> None:
        self.url = ""
        self.version: Any = {"version": "4", "ray_version": "2.60.0", "ray_commit": "x"}
        self.status = "SUCCEEDED"
        self.exit_code = 0
        self.submitted: dict[str, Any] = {}
        self.packages: dict[str, list[str]] = {}
        """The files of each package that was uploaded, by its name."""
        self.on_submit: Callable[[], None] = lambda: None
        """Called when a job is sent, before the answer."""
        self.on_info: Callable[[], None] = lambda: None
        """Called when the job's state is asked for, before the answer."""
        self.on_list: Callable[[], None] = lambda: None
        """Called when the list of jobs is asked for, before the answer."""
        self.after_log: Callable[[], None] = lambda: None
        """Called after the first lines of the log."""
        self.log_ends = True
        self._loop = asyncio.new_event_loop()
        self._transports: set[Any] = set()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def refuse(self) -> None:
        """Accept no connection from now on; those that are open stay so."""
        self._site._server.close()  # type: ignore[union-attr]

    def disappear(self) -> None:
        """Accept no connection from now on, and cut those that are open."""
        self.refuse()
        for transport in self._transports:
            transport.abort()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _listen(self) -> None:
        app = web.Application(middlewares=[self._remember])
        app.add_routes(
            [
                web.get("/api/version", self._version),
                web.get("/api/packages/{protocol}/{name}", self._has_package),
                web.put("/api/packages/{protocol}/{name}", self._receive_package),
                web.get("/api/jobs/", self._list),
                web.post("/api/jobs/", self._submit),
                web.get("/api/jobs/{id}", self._info),
                web.get("/api/jobs/{id}/logs/tail", self._tail),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await self._site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    @web.middleware
    async def _remember(self, request: web.Request, handler: Any) -> Any:
        self._transports.add(request.transport)
        return await handler(request)

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response(self.version)

    async def _has_package(self, request: web.Request) -> web.Response:
        return web.json_response({}, status=404)

    async def _receive_package(self, request: web.Request) -> web.Response:
        with zipfile.ZipFile(io.BytesIO(await request.read())) as package:
            self.packages[request.match_info["name"]] = package.namelist()
        return web.json_response({})

    async def _list(self, request: web.Request) -> web.Response:
        self.on_list()
        return web.json_response([self._job("earlier-job")])

    async def _submit(self, request: web.Request) -> web.Response:
        self.submitted = await request.json()
        self.on_submit()
        job_id = self.submitted["submission_id"]
        return web.json_response({"job_id": job_id, "submission_id": job_id})

    async def _info(self, request: web.Request) -> web.Response:
        self.on_info()
        return web.json_response(self._job(request.match_info["id"]))

    async def _tail(self, request: web.Request) -> web.WebSocketResponse:
        log = web.WebSocketResponse()
        await log.prepare(request)
        await log.send_str("epoch 1\n")
        self.after_log()
        if not self.log_ends:
            await asyncio.sleep(60)
        await log.close()
        return log

    def _job(self, job_id: str) -> dict[str, Any]:
        return {
            "type": "SUBMISSION",
            "submission_id": job_id,
            "status": self.status,
            "message": f"{self.status} as tested",
            "entrypoint": "python",
            "driver_exit_code": self.exit_code,
        }


@pytest.fixture
def server() -> Iterator[JobServer]:
    job_server = JobServer()
    job_server.start()
    try:
        yield job_server
    finally:
        job_server.stop()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "file.py").write_text("")
    return folder


@pytest.fixture(autouse=True)
def without_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


def refuse_request() -> None:
    raise web.HTTPInternalServerError(text="GCS is gone")


def assert_lost(result: JobResult, server: JobServer, log: str, exit_code: int = 1) -> None:
    assert (result.status, result.exit_code) == ("UNKNOWN", exit_code)
    assert result.job_id == server.submitted["submission_id"]
    assert f"lost the cluster at {server.url}" in result.message
    where = f"{result.job_id} --address {server.url}"
    assert f"follow: ray job logs --follow {where}\nstop:   ray job stop {where}" in result.message
    assert result.message in log


def test_job_is_sent_and_followed(
    server: JobServer, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = submit(["search", "vae", "a b;$c"], server.url, working_dir=project)
    assert (result.status, result.exit_code) == ("SUCCEEDED", 0)
    assert result.message == "SUCCEEDED as tested"
    assert capsys.readouterr().out == "epoch 1\n"
    assert server.submitted["entrypoint"] == "python -m pipelines search vae 'a b;$c'"
    assert server.submitted["submission_id"] == result.job_id
    assert server.submitted["runtime_env"]["working_dir"].startswith("gcs://")
    assert "GENPIPE_STORE" not in server.submitted["runtime_env"]["env_vars"]


def test_a_job_gets_the_store_that_its_command_was_checked_with(
    server: JobServer, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENPIPE_STORE", "/shared/genpipe")
    submit(["search", "vae"], server.url, working_dir=project)
    assert server.submitted["runtime_env"]["env_vars"]["GENPIPE_STORE"] == "/shared/genpipe"


def test_project_and_families_are_uploaded(
    server: JobServer, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / ".git").mkdir()
    (project / ".git" / "config").touch()
    source = tmp_path / "source"
    write_family_package(source, model="wae", space="wae_space", value="wae:WAE")
    monkeypatch.delitem(sys.modules, "wae", raising=False)
    monkeypatch.syspath_prepend(str(source))
    submit(["x"], server.url, working_dir=project)
    runtime_env = server.submitted["runtime_env"]
    files = {uri: server.packages[uri.removeprefix("gcs://")] for uri in runtime_env["py_modules"]}
    assert [sorted(f for f in names if not f.endswith("/")) for names in files.values()] == [
        ["wae/__init__.py"],
        ["wae_space/__init__.py"],
        ["other_models-1.2.dist-info/METADATA", "other_models-1.2.dist-info/entry_points.txt"],
    ]
    assert server.packages[runtime_env["working_dir"].removeprefix("gcs://")] == ["file.py"]


@pytest.mark.parametrize(("own", "expected"), [(3, 3), (-9, 137), (0, 1)])
def test_exit_code_of_a_failed_job(
    server: JobServer, project: Path, own: int, expected: int
) -> None:
    server.status, server.exit_code = "FAILED", own
    assert submit(["x"], server.url, working_dir=project).exit_code == expected


def test_cluster_lost_while_the_log_is_followed(
    server: JobServer,
    project: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.after_log, server.log_ends = server.disappear, False
    result = submit(["x"], server.url, working_dir=project)
    assert_lost(result, server, caplog.text)
    assert "the job may go on" in result.message
    assert capsys.readouterr().out == "epoch 1\n"


def test_cluster_lost_without_notice_while_the_log_is_silent(
    server: JobServer,
    project: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "PROBE_SECONDS", 0.05)
    server.after_log, server.log_ends = server.refuse, False
    assert_lost(submit(["x"], server.url, working_dir=project), server, caplog.text)


def test_cluster_lost_between_submission_and_log(
    server: JobServer, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.on_submit = server.refuse
    assert_lost(submit(["x"], server.url, working_dir=project), server, caplog.text)


@pytest.mark.parametrize("submission_id", [None, "my-job"])
def test_cluster_lost_while_the_job_is_sent(
    server: JobServer, project: Path, caplog: pytest.LogCaptureFixture, submission_id: str | None
) -> None:
    server.on_submit = server.disappear
    result = submit(["x"], server.url, working_dir=project, submission_id=submission_id)
    assert_lost(result, server, caplog.text)
    assert "it may run or not" in result.message
    assert submission_id in (None, result.job_id)


@pytest.mark.parametrize("status", ["RUNNING", "SUCCEEDED"])
def test_cluster_lost_after_the_log(
    server: JobServer, project: Path, caplog: pytest.LogCaptureFixture, status: str
) -> None:
    """While the end of the job is awaited, and when its exit code is asked for."""
    server.status = status
    asked = []

    def lose_at_second_request() -> None:
        asked.append(1)
        if len(asked) == 2:
            server.disappear()

    server.on_info = lose_at_second_request
    assert_lost(submit(["x"], server.url, working_dir=project), server, caplog.text)


def test_job_server_that_answers_with_errors_counts_as_lost(
    server: JobServer, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.on_info = refuse_request
    result = submit(["x"], server.url, working_dir=project)
    assert_lost(result, server, caplog.text)
    assert "GCS is gone" in result.message


def test_cluster_lost_after_a_job_that_is_not_waited_for(
    server: JobServer, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.on_info = server.disappear
    result = submit(["x"], server.url, wait=False, working_dir=project)
    assert_lost(result, server, caplog.text, exit_code=0)


@pytest.mark.parametrize("lost", [False, True])
def test_interrupt_stops_following(
    server: JobServer, project: Path, caplog: pytest.LogCaptureFixture, lost: bool
) -> None:
    caplog.set_level("INFO", "pipelines.cluster.jobs")
    server.status, server.log_ends = "RUNNING", False

    def interrupt() -> None:
        if lost:
            server.refuse()
        os.kill(os.getpid(), signal.SIGINT)

    server.after_log = interrupt
    result = submit(["x"], server.url, working_dir=project)
    if lost:
        assert_lost(result, server, caplog.text, exit_code=130)
    else:
        assert (result.status, result.exit_code) == ("RUNNING", 130)
        assert f"the job goes on\nfollow: ray job logs --follow {result.job_id}" in caplog.text


def test_refused_job_is_the_users_error(server: JobServer, project: Path) -> None:
    server.on_submit = refuse_request
    with pytest.raises(InputError, match=r"refuses the job: .*GCS is gone"):
        submit(["x"], server.url, working_dir=project)


def test_used_submission_id_is_refused(server: JobServer, project: Path) -> None:
    with pytest.raises(InputError, match="submission_id = 'earlier-job'"):
        submit(["x"], server.url, working_dir=project, submission_id="earlier-job")
    assert not server.submitted


@pytest.mark.parametrize("how", ["disappears", "fails"])
def test_jobs_that_are_not_listed(server: JobServer, project: Path, how: str) -> None:
    server.on_list = server.disappear if how == "disappears" else refuse_request
    with pytest.raises(InputError, match="no job was sent"):
        submit(["x"], server.url, working_dir=project, submission_id="my-job")
    assert not server.submitted


@pytest.mark.parametrize("answer", [{}, [], {"ray_version": "latest"}, {"ray_version": "1.0"}])
def test_server_that_is_not_rays(server: JobServer, project: Path, answer: Any) -> None:
    server.version = answer
    with pytest.raises(InputError, match="no Ray job server there"):
        submit(["x"], server.url, working_dir=project)


def test_page_that_does_not_exist(server: JobServer, project: Path) -> None:
    with pytest.raises(InputError, match="no Ray job server there"):
        submit(["x"], f"{server.url}/elsewhere", working_dir=project)


def test_submit_to_no_cluster_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"address = 'http://127\.0\.0\.1:1'"):
        submit(["--help"], "http://127.0.0.1:1", working_dir=tmp_path)
    with pytest.raises(InputError, match="working_dir"):
        submit(["--help"], "http://127.0.0.1:1", working_dir=tmp_path / "none")
    not_a_url = environment({"RAY_API_SERVER_ADDRESS": "10.0.0.1:6379"})
    with not_a_url, pytest.raises(InputError, match="RAY_API_SERVER_ADDRESS"):
        submit(["--help"], working_dir=tmp_path)
