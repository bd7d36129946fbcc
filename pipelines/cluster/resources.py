"""The devices that a search can put populations on."""

from __future__ import annotations

import os

import torch

from pipelines.cluster.connection import Cluster
from pipelines.config.run import Search
from pipelines.tuning.fused.placement import Devices


def local_devices(run: Search) -> Devices | None:
    """This machine's, or None where the search uses a cluster."""
    if run.address or os.environ.get("RAY_ADDRESS"):
        return None
    gpus = torch.cuda.device_count()
    on_gpu = gpus > 0 and run.device != "cpu"
    return Devices(gpus if on_gpu else os.cpu_count() or 1, on_gpu, _local_memory(on_gpu))


def cluster_devices(cluster: Cluster, on_gpu: bool) -> Devices:
    """A cluster's. How much memory another machine's GPU has, Ray does not know."""
    num = max(1, int(cluster.num_gpus if on_gpu else cluster.num_cpus))
    if cluster.is_local:
        return Devices(num, on_gpu, _local_memory(on_gpu))
    memory = None if on_gpu else int(cluster.resources.get("memory", 0)) or None
    return Devices(num, on_gpu, memory)


def _local_memory(on_gpu: bool) -> int:
    if on_gpu:
        return int(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
