"""The store by which worker processes find each other when a process group is initialised."""

from __future__ import annotations

import socket
from importlib import import_module
from typing import Any

import torch.distributed as dist

_TORCHS = "torch.distributed.rendezvous"
"""The module; `torch.distributed` has a function of the same name."""
_NAMES = ("host_name", "port", "world_size", "is_master", "timeout")


def listen_at_one_address() -> None:
    """Have the process groups that this process initialises by MASTER_ADDR and MASTER_PORT listen
    there, and not at MASTER_PORT of every address of the machine: whoever reaches the store could
    stop the training, and torch has no login for it."""
    import_module(_TORCHS).TCPStore = _make_store  # type: ignore[attr-defined]


def _make_store(*args: Any, **settings: Any) -> Any:
    """Return torch's `TCPStore` with these arguments, listening at `host_name` alone."""
    settings |= dict(zip(_NAMES, args, strict=False))
    if settings.get("is_master"):
        host, port = settings["host_name"], settings["port"]
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=4096)
        settings["master_listen_fd"] = listening.detach()  # it is the store's from here on
    return dist.TCPStore(**settings)  # type: ignore[attr-defined]
