"""Ray heads that tests start, with a token of their own, and stop by their own processes.

`ray stop` would stop every Ray on the machine.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import ray
import requests
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

from benchmarks.processes import free_ports
from pipelines.cluster.environment import environment

TOKEN = "0123456789abcdef" * 4


@dataclass(frozen=True)
class RayHead:
    """A cluster of one node, as `ray start --head` makes it."""

    address: str
    """`host:port` of its GCS."""
    dashboard: str
    """URL of its job server."""
    process: psutil.Popen

    def kill(self) -> None:
        """Kill the node: on SIGTERM it drains for up to 30 s."""
        _kill(self.process)


@contextmanager
def token_mode(folder: Path) -> Iterator[dict[str, str]]:
    """Authenticate with `TOKEN`, written to `folder`; yields the variables that are set."""
    path = folder / "auth_token"
    path.write_text(TOKEN)
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}
    with environment(variables):
        _forget_token()
        yield variables
    _forget_token()


@contextmanager
def running_head(token: Mapping[str, str]) -> Iterator[RayHead]:
    """Start a head with two CPUs and a job server, and kill it at the end."""
    port, dashboard_port = free_ports(2)
    temp_dir = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: it holds Unix sockets
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, **token, "PATH": path, "RAY_USAGE_STATS_ENABLED": "0"}
    flags = [f"--port={port}", f"--dashboard-port={dashboard_port}", f"--temp-dir={temp_dir}"]
    flags += ["--num-cpus=2", "--disable-usage-stats", "--dashboard-host=127.0.0.1", "--block"]
    flags += ["--dashboard-agent-listen-port=0"]  # its default is one port a machine
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", *flags]
    process = psutil.Popen(command, env=env, stdout=subprocess.DEVNULL, start_new_session=True)
    address = f"{ray.util.get_node_ip_address()}:{port}"  # type: ignore[no-untyped-call]
    head = RayHead(address, f"http://127.0.0.1:{dashboard_port}", process)
    try:
        _wait_for_dashboard(head)
        yield head
    finally:
        head.kill()
        shutil.rmtree(temp_dir, ignore_errors=True)


@contextmanager
def running_node(address: str, token: Mapping[str, str], hidden: Path) -> Iterator[None]:
    """Add a node with one CPU to a cluster, which sees an empty folder in place of `hidden`, and
    kill it at the end. Needs the right to mount."""
    flags = [f"--address={address}", "--num-cpus=1", "--block", "--disable-usage-stats"]
    flags += ["--dashboard-agent-listen-port=0"]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *flags]
    mounted = f"mount -t tmpfs tmpfs {shlex.quote(str(hidden))} && exec {shlex.join(command)}"
    process = psutil.Popen(
        ["unshare", "--mount", "sh", "-c", mounted],
        env={**os.environ, **token},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        _kill(process)


def can_mount() -> bool:
    """Return whether this process may mount a file system in a namespace of its own."""
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _kill(process: psutil.Popen) -> None:
    """Kill a process and those below it."""
    try:
        processes = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:  # it was killed before
        return
    for each in processes:
        if each.is_running():
            each.kill()
    psutil.wait_procs(processes, timeout=10)


def _forget_token() -> None:
    """Make Ray read the mode and the token anew: it caches both."""
    AuthenticationTokenLoader.instance().reset_cache()
    Config.initialize("")


def _wait_for_dashboard(head: RayHead) -> None:
    deadline = time.monotonic() + 60
    headers = {"Authorization": f"Bearer {TOKEN}"}
    while time.monotonic() < deadline and head.process.poll() is None:
        try:
            if requests.get(f"{head.dashboard}/api/jobs/", headers=headers, timeout=5).ok:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"no Ray head at {head.dashboard}")
