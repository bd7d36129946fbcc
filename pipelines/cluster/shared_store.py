"""Checks that the nodes of a cluster see the store of a command."""

from __future__ import annotations

import logging
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.store.marker import StoreMarker

if TYPE_CHECKING:  # trial processes import this module, and need no connection
    from pipelines.cluster.connection import Cluster

_REPLY_SECONDS = 120.0
"""How long nodes may take to reply: each prepares the command's runtime environment first."""
_log = logging.getLogger(__name__)


def shared_store(store: Path, marker: Path, cluster: Cluster) -> StoreMarker:
    """Write a marker, and have each node of the cluster look for it. A node that is added later
    looks for it before it writes (`require_shared`).

    Raises `UnsharedStoreError` that names the nodes that do not see it.
    """
    written = StoreMarker.write(store, marker)
    if not cluster.is_local:
        _require_seen_by_all(written)
    return written


def require_shared(marker: StoreMarker) -> None:
    """Raise `UnsharedStoreError` unless this process of Ray sees the marker."""
    node_id = ray.get_runtime_context().get_node_id()
    marker.require_seen(_node_name(platform.node(), ray.util.get_node_ip_address(), node_id))


def _require_seen_by_all(marker: StoreMarker) -> None:
    nodes = [node for node in ray.nodes() if node["Alive"]]
    look = ray.remote(num_cpus=0, max_retries=0)(_is_seen)
    replies = {}
    for node in nodes:
        only_there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        name = _node_name(node["NodeManagerHostname"], node["NodeManagerAddress"], node["NodeID"])
        replies[look.options(scheduling_strategy=only_there).remote(marker)] = name
    ray.wait(list(replies), num_returns=len(replies), timeout=_REPLY_SECONDS)
    unseen = []
    for reply, name in replies.items():
        try:
            if not ray.get(reply, timeout=0):
                unseen.append(name)
        except RayError as error:  # it left meanwhile, or does not reply: its processes look again
            _log.warning("whether %s sees the store is not known: %s", name, error)
    if unseen:
        raise marker.unshared(unseen)


def _is_seen(marker: StoreMarker) -> bool:
    return marker.is_seen()


def _node_name(host: str, address: str, node_id: str) -> str:
    return f"node {host} ({address}, Ray's id {node_id[:8]})"
