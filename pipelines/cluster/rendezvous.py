"""Where the workers of Ray Train find each other: at an address of the first worker, and not at
every address of its machine, which is torch's default."""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend


class OneAddressTorchConfig(TorchConfig):  # type: ignore[misc]
    """Ray Train's `TorchConfig`, whose workers meet at the address that Ray gives them: 127.0.0.1
    on a machine alone, the node's on a cluster."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _OneAddressBackend


class _OneAddressBackend(_TorchBackend):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(_prepare_worker)
        super().on_start(worker_group, backend_config)


def _prepare_worker() -> None:
    # Ray's processes that start the workers import this module, and need no models.
    from gen_models.training.rendezvous import listen_at_one_address  # light: imports torch

    listen_at_one_address()
