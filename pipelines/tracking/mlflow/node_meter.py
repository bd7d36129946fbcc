"""Meters the processors, the memory and the GPUs of a node by MLflow's own collectors."""

from __future__ import annotations

import logging
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Any

import psutil

_EVERY_SECONDS = 10.0
_log = logging.getLogger(__name__)


class NodeMeter:
    """Samples this process's node, in a thread that ends with the process or by `close`. The first
    sample is taken after an interval, so that a short search does not pay for it."""

    def __init__(self, every_seconds: float = _EVERY_SECONDS) -> None:
        self._every_seconds = every_seconds
        self._monitors: list[Any] = []
        """MLflow's `BaseMetricsMonitor`, which has no types."""
        self._lock, self._closed = Lock(), Event()
        Thread(target=self._run, name="node meter", daemon=True).start()

    def read(self) -> dict[str, float]:
        """Return the means since the last reading by MLflow's names of system metrics, such as
        `gpu_0_memory_usage_megabytes`; {} if no sample was taken since."""
        with self._lock:
            values = {k: float(v) for each in self._monitors for k, v in _taken(each).items()}
        return values

    def close(self) -> None:
        """Take no more samples."""
        self._closed.set()

    def _run(self) -> None:
        psutil.cpu_percent()  # a thread's first value is meaningless
        try:
            while not self._closed.wait(self._every_seconds):
                self._monitors = self._monitors or _monitors()
                with self._lock:
                    for monitor in self._monitors:
                        monitor.collect_metrics()
        except Exception as error:  # nothing that trains depends on it
            _log.warning("system metrics are no longer collected: %s", error)


def _monitors() -> list[Any]:
    """Return collectors of the processors and the memory, and of the GPUs if there are any."""
    # light: imports mlflow
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor

    # light: as above
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    found: list[Any] = [CPUMonitor()]  # type: ignore[no-untyped-call]
    with suppress(ImportError, RuntimeError):
        found.append(GPUMonitor())  # type: ignore[no-untyped-call]
    return found


def _taken(monitor: Any) -> dict[str, float]:
    """Return the means of a collector's samples, and forget these."""
    values: dict[str, float] = monitor.aggregate_metrics()
    monitor.clear_metrics()
    return values
