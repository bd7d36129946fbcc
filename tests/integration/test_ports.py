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


WORKERS = """
import json, sys
import psutil
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from pipelines.cluster.connection import connect
from pipelines.cluster.rendezvous import OneAddressTorchConfig

def work(config):
    import pathlib, ray.train, torch
    import torch.distributed as dist
    total = torch.ones(3)
    dist.all_reduce(total)
    connections = psutil.Process().net_connections("inet")
    found = [c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN]
    rank = ray.train.get_context().get_world_rank()
    content = {"total": total.tolist(), "listening": found}
    pathlib.Path(config["folder"], f"{rank}.json").write_text(json.dumps(content))
    dist.barrier()

folder = sys.argv[1]
with connect(None, num_cpus=2):
    TorchTrainer(
        work,
        train_loop_config={"folder": folder},
        torch_config=OneAddressTorchConfig(),
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(name="ray", storage_path=folder),
    ).fit()
"""


def test_workers_listen_on_the_loopback_address_alone(tmp_path: Path) -> None:
    """By default the store in which torch's workers meet listens on every address."""
    arguments = [sys.executable, "-c", WORKERS, str(tmp_path)]
    done = subprocess.run(
        arguments, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["total"] == [2.0, 2.0, 2.0] and found["listening"]
        assert {ip.removeprefix("::ffff:") for ip in found["listening"]} <= {"127.0.0.1", "::1"}
