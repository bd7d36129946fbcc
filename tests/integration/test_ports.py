"""A Ray instance of a command listens on this machine alone, and its token is logged nowhere."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TOKEN = "planted-token-0123456789abcdef-0123456789abcdef"

START = """
import json, os, psutil, ray
from pipelines.cluster.connection import connect

with connect(None, num_cpus=1) as cluster:
    @ray.remote
    def work():
        return os.getpid()

    assert ray.get(work.remote()) != os.getpid()
    own = psutil.Process().children(recursive=True)
    found = {
        (c.laddr.ip.removeprefix("::ffff:"), process.name())
        for process in [psutil.Process(), *own]
        for c in process.net_connections("inet")
        if c.status == psutil.CONN_LISTEN
    }
    mode = os.environ["RAY_AUTH_MODE"]
    logs = ray._private.worker._global_node.get_session_dir_path()
print(json.dumps({"listening": sorted(found), "mode": mode, "logs": logs}))
"""


def test_ray_listens_on_the_loopback_address_alone(tmp_path: Path) -> None:
    """By default Ray's servers listen on every address of the machine."""
    addresses = [a.address for each in psutil.net_if_addrs().values() for a in each]
    if not any(_is_reachable(address) for address in addresses):
        pytest.skip("this machine has the loopback address alone")
    done = subprocess.run(
        [sys.executable, "-c", START],
        cwd=ROOT,
        env=os.environ | {"RAY_AUTH_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["listening"] and {ip for ip, _ in found["listening"]} <= {"127.0.0.1", "::1"}
    assert found["mode"] == "token"
    logs = [path for path in Path(found["logs"]).rglob("*") if path.is_file()]
    assert logs and not [path for path in logs if TOKEN.encode() in path.read_bytes()]
    assert TOKEN not in done.stdout + done.stderr


def _is_reachable(address: str) -> bool:
    try:
        return not socket.inet_aton(address).startswith(b"\x7f")
    except OSError:
        return False
