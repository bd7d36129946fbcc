"""Jobs that are submitted to a Ray head on this machine."""

import io
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from mlflow import MlflowClient
from ray.job_submission import JobSubmissionClient
from support.family_package import write_family_package
from support.pipeline import wait_until
from support.ray_head import RayHead, running_head, token_mode

from gen_models.core.errors import InputError
from pipelines.cli.main import main
from pipelines.cluster.jobs import submit
from pipelines.store.layout import Store

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Authenticate with a token of this module; the variables that are set."""
    with token_mode(tmp_path_factory.mktemp("token")) as variables:
        yield variables


@pytest.fixture(scope="module")
def ray_head(token: dict[str, str]) -> Iterator[RayHead]:
    with running_head(token) as head:
        yield head


def project(folder: Path, main: str) -> Path:
    """A working directory whose `python -m pipelines` is `main`."""
    package = folder / "pipelines"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(main)
    return folder


def test_job_runs_the_command_and_its_log_comes_back(
    ray_head: RayHead, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    working_dir = project(tmp_path, "import os, sys\nprint('ran', sys.argv[1:], os.getcwd())\n")
    result = submit(["search", "vae", "a b;$c"], ray_head.dashboard, working_dir=working_dir)
    assert (result.status, result.exit_code) == ("SUCCEEDED", 0)
    assert "ran ['search', 'vae', 'a b;$c']" in capsys.readouterr().out


@pytest.mark.long
def test_job_runs_a_search(ray_head: RayHead, tmp_path: Path) -> None:
    """The project as it stands, sent to the cluster; the result is in MLflow."""
    search = ["search", "vae", "--trials", "1", "--epochs", "2", "--grace-period", "1"]
    store = ["--store", str(tmp_path / "runs")]
    result = submit([*search, *store], ray_head.dashboard, working_dir=ROOT)
    assert (result.status, result.exit_code) == ("SUCCEEDED", 0), result.message
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (experiment,) = (e for e in client.search_experiments() if e.name == "vae-digits")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2 and "RUNNING" not in {run.info.status for run in runs}
    assert str(client.get_model_version_by_alias("vae-digits", "champion").version) == "1"


@pytest.mark.long
def test_job_runs_a_job_file(
    ray_head: RayHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is sent with the project; the job's state is in the store."""
    monkeypatch.chdir(ROOT)
    sets = [f"--set={each}" for each in (f"store={tmp_path}/runs", "trials=1", "epochs=3")]
    command = ["run", str(ROOT / "examples" / "search.yaml"), *sets]
    assert main(["submit", "--address", ray_head.dashboard, "--", *command]) == 0
    folder = Store.at(tmp_path / "runs").job("search")
    assert folder.stages() == ["search"]
    assert '"exit_code": 0' in folder.stage("search").read_text()


def test_exit_code_and_used_id_of_a_failing_job(ray_head: RayHead, tmp_path: Path) -> None:
    working_dir = project(tmp_path, "raise SystemExit(3)\n")
    job_id = "failing-job"
    result = submit(["x"], ray_head.dashboard, True, working_dir, job_id)
    assert (result.job_id, result.status, result.exit_code) == (job_id, "FAILED", 3)
    with pytest.raises(InputError, match="submission_id = 'failing-job'"):
        submit(["x"], ray_head.dashboard, True, working_dir, job_id)


def test_job_that_nobody_waits_for(
    ray_head: RayHead, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pipelines.cluster.jobs")
    result = submit(["x"], ray_head.dashboard, False, project(tmp_path, "pass\n"))
    assert result.exit_code == 0
    assert f"ray job stop {result.job_id}" in caplog.text


CLOSES_SLOWLY = """
import signal, sys, time

def close(*_):
    time.sleep(5)
    print("closed", flush=True)
    sys.exit(143)

signal.signal(signal.SIGTERM, close)
print("started", flush=True)
time.sleep(300)
"""


@pytest.mark.long
def test_job_that_is_stopped_has_time_to_close(ray_head: RayHead, tmp_path: Path) -> None:
    sent = submit(["x"], ray_head.dashboard, False, project(tmp_path, CLOSES_SLOWLY))
    client = JobSubmissionClient(ray_head.dashboard)
    wait_until(lambda: "started" in client.get_job_logs(sent.job_id))
    client.stop_job(sent.job_id)
    wait_until(lambda: client.get_job_status(sent.job_id).is_terminal())
    assert "closed" in client.get_job_logs(sent.job_id)


@pytest.mark.parametrize("mode", ["token", "disabled"])
def test_wrong_or_missing_token_is_the_users_error(
    ray_head: RayHead, tmp_path: Path, mode: str
) -> None:
    """In a process of its own: Ray keeps a token for as long as a process lives."""
    wrong = tmp_path / "wrong"
    wrong.write_text("f" * 64)
    env = {**os.environ, "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN_PATH": str(wrong)}
    code = (
        "import sys\nfrom pathlib import Path\nfrom gen_models.core.errors import InputError\n"
        "from pipelines.cluster.jobs import submit\n"
        "try:\n    submit(['x'], sys.argv[1], working_dir=Path(sys.argv[2]))\n"
        "except InputError as error:\n    print(error)\n    sys.exit(2)\n"
    )
    command = [sys.executable, "-c", code, ray_head.dashboard, str(tmp_path)]
    ran = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2, ran.stderr
    assert "RAY_AUTH_MODE=token" in ran.stdout


@pytest.mark.long
def test_job_knows_a_family_of_another_package(
    ray_head: RayHead,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_family_package(tmp_path / "source", model="wae", space="wae_space", value="wae:WAE")
    monkeypatch.delitem(sys.modules, "wae", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "source"))
    main = "from gen_models.core import families\nprint('space', families.space_module('wae'))\n"
    result = submit(["x"], ray_head.dashboard, working_dir=project(tmp_path / "project", main))
    assert result.status == "SUCCEEDED", result.message
    assert "space wae_space" in capsys.readouterr().out


class Lines(io.StringIO):
    """Keeps what is written to it in a list, which another thread reads."""

    def __init__(self, written: list[str]) -> None:
        super().__init__()
        self.written = written

    def write(self, text: str) -> int:
        self.written.append(text)
        return len(text)


@pytest.mark.long
def test_cluster_that_is_killed_while_the_log_is_followed(
    token: dict[str, str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    working_dir = project(tmp_path, "import time\nprint('started', flush=True)\ntime.sleep(300)\n")
    with running_head(token) as head:

        def kill_once_started(written: list[str]) -> None:
            while "started" not in "".join(written) and head.process.is_running():
                time.sleep(0.1)
            head.kill()

        written: list[str] = []
        killer = threading.Thread(target=kill_once_started, args=(written,))
        killer.start()
        with redirect_stdout(Lines(written)):
            result = submit(["search", "vae"], head.dashboard, working_dir=working_dir)
        killer.join()
    assert (result.status, result.exit_code) == ("UNKNOWN", 1)
    assert f"lost the cluster at {head.dashboard}" in caplog.text
    assert f"ray job logs --follow {result.job_id} --address {head.dashboard}" in result.message
