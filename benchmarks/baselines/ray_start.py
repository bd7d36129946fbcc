"""Ray's own part of starting, going on after a kill, and ending: an actor that imports torch.

python -m benchmarks.baselines.ray_start --ready FILE
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from pathlib import Path

import ray

from benchmarks.baselines.request import answer


class Actor:
    """Imports torch, and replies."""

    def __init__(self) -> None:
        import torch

        self.torch = torch

    def pid(self) -> int:
        return os.getpid()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ready", type=Path, required=True, help="file to write once it replies")
    ready = parser.parse_args().ready
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    actor = ray.remote(max_restarts=-1, max_task_retries=-1)(Actor).remote()
    pid = ray.get(actor.pid.remote())
    ready.touch()
    killed = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    while ray.get(actor.pid.remote()) == pid:  # it may reply once more
        time.sleep(0.01)
    restarted = time.perf_counter()
    ray.shutdown()
    ended = time.perf_counter()
    answer({"restart_seconds": restarted - killed, "shutdown_seconds": ended - restarted})


if __name__ == "__main__":
    main()
