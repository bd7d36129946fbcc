"""Runs a function in several worker processes that form a gloo process group, without Ray."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from gen_models.training.rendezvous import listen_at_one_address


def run_workers(num: int, function: Callable[..., None], *args: Any) -> None:
    """Call `function(rank, *args)` in `num` spawned processes on CPUs, with one thread each.

    `function` is a module-level function of a module that can be imported. Raises what it raised.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    spawn(_run_worker, (num, port, function, args), nprocs=num)  # type: ignore[no-untyped-call]


def _run_worker(
    rank: int, num: int, port: int, function: Callable[..., None], args: tuple[Any, ...]
) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    listen_at_one_address()
    dist.init_process_group("gloo", rank=rank, world_size=num)
    function(rank, *args)
    dist.barrier()  # none leaves while another still communicates
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads can abort a process that ends the usual way
