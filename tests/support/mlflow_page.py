"""MLflow's page, served by `genpipe browse` in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import requests

from pipelines.store.layout import Store

ROOT = Path(__file__).parents[2]
USER = "ada"


@contextmanager
def page(store: Store, password: str, *flags: str) -> Iterator[str]:
    """Serve the page of a store for the block, with this user and password; return its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pipelines", "browse", *flags]
    running = subprocess.Popen(
        [*command, "--store", str(store.root), "--port", str(port)],
        cwd=ROOT,
        env=os.environ | {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": password},
        start_new_session=True,
        stdout=(store.root / "out.txt").open("a"),
        stderr=subprocess.STDOUT,
    )
    try:
        await_page(running, f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
        arguments = [" ".join(p.cmdline()) for p in family(running.pid)]
        assert arguments and not any(password in text for text in arguments)
        assert {address for p in family(running.pid) for address in listening(p)} == {
            ("127.0.0.1", port)
        }
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def family(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


def listening(process: psutil.Process) -> list[tuple[str, int]]:
    found = process.net_connections("inet")
    return [(c.laddr.ip, c.laddr.port) for c in found if c.status == psutil.CONN_LISTEN]


def await_page(running: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert running.poll() is None, f"the server ended with {running.returncode}"
        with suppress(requests.RequestException):
            requests.get(f"{address}/health", timeout=2)
            return
        time.sleep(0.2)
    raise TimeoutError("no page within two minutes")
