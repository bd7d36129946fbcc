"""The devices that a command can use, on this machine or on a cluster, and checks against them.

Does not import Ray, so a dry run can describe this machine without it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from gen_models.core.errors import require

if TYPE_CHECKING:  # its import imports Ray
    from pipelines.cluster.connection import Cluster

Device = Literal["auto", "cpu", "cuda"]
"""Where a run trains; `auto` is a GPU if there is one."""


@dataclass(frozen=True)
class Devices:
    """The devices that fused workers can be placed on: GPUs, or CPU cores."""

    num: int
    """Number of GPUs or of CPU cores; at least 1."""
    on_gpu: bool
    memory: int | None
    """Bytes of each GPU, or of all CPU cores together; None where unknown."""


def local_devices(address: str | None, device: Device) -> Devices | None:
    """Return this machine's devices, or None where `address` or `RAY_ADDRESS` names a cluster."""
    if _uses_cluster(address):
        return None
    gpus = torch.cuda.device_count()
    on_gpu = gpus > 0 and device != "cpu"
    return Devices(gpus if on_gpu else os.cpu_count() or 1, on_gpu, _local_memory(on_gpu))


def cluster_devices(cluster: Cluster, on_gpu: bool) -> Devices:
    """Return a cluster's devices. The memory of other machines' GPUs is unknown to Ray."""
    num = max(1, int(cluster.num_gpus if on_gpu else cluster.num_cpus))
    if cluster.is_local:
        return Devices(num, on_gpu, _local_memory(on_gpu))
    memory = None if on_gpu else int(cluster.resources.get("memory", 0)) or None
    return Devices(num, on_gpu, memory)


def uses_gpu(cluster: Cluster, device: Device, num_workers: int) -> bool:
    """Return True if each of a run's workers takes a GPU, False if each takes a CPU core.

    Raises `InputError` where the cluster has too few of them.
    """
    on_gpu = device == "cuda" or (device == "auto" and cluster.num_gpus > 0)
    cluster.require_workers(num_workers, 1, 1 if on_gpu else 0)
    return on_gpu


def check_machine(address: str | None, device: Device, num_workers: int) -> None:
    """Raise `InputError` if this machine is to do the work and has too few devices.

    A cluster is checked by `uses_gpu`, once it is connected.
    """
    if _uses_cluster(address):
        return
    cores, gpus = os.cpu_count() or 1, torch.cuda.device_count()
    if device == "cuda":
        require(gpus > 0, "device", device, "cpu or auto, because this machine has no GPU")
    on_gpu = gpus > 0 and device != "cpu"
    most, kind = (gpus, "GPUs") if on_gpu else (cores, "CPU cores")
    expected = f"at most {most}, because this machine has {most} {kind} and a worker takes one"
    require(num_workers <= most, "num_workers", num_workers, expected)


def _uses_cluster(address: str | None) -> bool:
    return bool(address or os.environ.get("RAY_ADDRESS"))


def _local_memory(on_gpu: bool) -> int:
    """Bytes of the first GPU, or of this machine's main memory."""
    if on_gpu:
        return int(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
