"""What the nodes of a cluster do while a search runs, for MLflow's page of system metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.cluster.connection import Cluster
from pipelines.tracking.mlflow.node_meter import NodeMeter

_LOOK_SECONDS = 60.0
"""How long a node that has joined may go unmetered."""


class NodeMetrics:
    """Meters each node of a cluster once: this process's own here, every other by an actor on
    it."""

    def __init__(self, cluster: Cluster) -> None:
        self._is_local = cluster.is_local
        self._own = NodeMeter()
        self._own_address: str = ray.util.get_node_ip_address()
        self._meters: dict[str, Any] = {}
        """Actors by the address of their node."""
        self._hosts: dict[str, str] = {}
        self._asked: dict[Any, str] = {}
        """Replies that are awaited, and of which node."""
        self._looked = float("-inf")

    def read(self) -> dict[str, float]:
        """Return means since the last reading, `system/<metric>`; on a cluster
        `system/<host>/<metric>`. Those of other nodes are from before the last reading: nothing is
        waited for."""
        own = self._own.read()
        if self._is_local:
            return {f"system/{name}": value for name, value in own.items()}
        self._look_for_nodes()
        values = self._named(self._own_address, own)
        ready, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
        for reply in ready:
            address = self._asked.pop(reply)
            try:
                values |= self._named(address, ray.get(reply))
            except RayError:  # the node has gone; another one may take its address
                self._meters.pop(address, None)
        awaited = set(self._asked.values())
        for address, meter in self._meters.items():
            if address not in awaited:
                self._asked[meter.read.remote()] = address
        return values

    def close(self) -> None:
        """Take no more samples. Ray ends an actor that nothing refers to."""
        self._own.close()
        self._asked.clear()
        self._meters.clear()

    def _named(self, address: str, values: dict[str, float]) -> dict[str, float]:
        host = self._hosts.get(address, address)
        return {f"system/{host}/{name}": value for name, value in values.items()}

    def _look_for_nodes(self) -> None:
        """Place a meter on each machine that has none: nodes of one address are one machine."""
        if (now := time.monotonic()) - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        alive = {node["NodeManagerAddress"]: node for node in ray.nodes() if node["Alive"]}
        self._hosts = {address: node["NodeManagerHostname"] for address, node in alive.items()}
        if len(set(self._hosts.values())) < len(self._hosts):  # containers may share a name
            self._hosts = {address: address for address in self._hosts}
        meter = ray.remote(num_cpus=0, max_restarts=0)(NodeMeter)
        for address in alive.keys() - self._meters.keys() - {self._own_address}:
            only_there = NodeAffinitySchedulingStrategy(alive[address]["NodeID"], soft=False)
            self._meters[address] = meter.options(scheduling_strategy=only_there).remote()


@contextmanager
def metered_nodes(cluster: Cluster) -> Iterator[NodeMetrics]:
    """Meter the nodes of a cluster for the block."""
    metrics = NodeMetrics(cluster)
    try:
        yield metrics
    finally:
        metrics.close()
