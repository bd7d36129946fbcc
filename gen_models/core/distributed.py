"""One trial on several workers: what makes W workers compute what one would.

Each worker runs its rows of the global batch; DDP averages the gradients; batch norm sees the
statistics of the global batch. A family knows of none of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel


def rank_and_world() -> tuple[int, int]:
    """This process's rank and the number of workers; (0, 1) where there is one."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the rows of all workers. torch's `SyncBatchNorm` is for GPUs alone; this
    one runs on either, and takes workers with unequal numbers of rows."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            normed: Tensor = super().forward(input)
            return normed
        rows = input.new_full((1,), float(input.numel() // input.shape[1]))
        sums = torch.cat([input.sum((0, 2, 3)), input.square().sum((0, 2, 3)), rows])
        sums = all_reduce(sums)  # type: ignore[no-untyped-call]
        mean, square = (sums[:-1] / sums[-1]).chunk(2)
        var = square - mean.square()
        self._track(mean.detach(), var.detach(), sums[-1].detach())
        scale = self.weight * torch.rsqrt(var + self.eps)
        shift = self.bias - mean * scale
        normed = input * scale[:, None, None] + shift[:, None, None]
        return normed

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, rows: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.momentum is not None and self.num_batches_tracked is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(var * rows / (rows - 1), self.momentum)
        self.num_batches_tracked.add_(1)


def share_batch_norm(network: nn.Module) -> None:
    """Make every batch norm of `network` see the global batch. Names and parameters stay."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlobalBatchNorm2d


def wrap(networks: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The networks as a worker trains them: under DDP where there are several workers."""
    if rank_and_world()[1] == 1:
        return dict(networks)
    wrapped = {}
    for name, network in networks.items():
        share_batch_norm(network)
        trains = any(p.requires_grad for p in network.parameters())
        # Buffers follow from the global batch and the parameters: equal without a broadcast.
        wrapped[name] = (
            DistributedDataParallel(network, broadcast_buffers=False) if trains else network
        )
    return wrapped


def sum_over_workers(values: Tensor) -> Tensor:
    """The sum of `values` over the workers, in place."""
    if rank_and_world()[1] > 1:
        dist.all_reduce(values)
    return values


def fingerprint(networks: Mapping[str, nn.Module]) -> str:
    """A hash of every parameter and buffer, bit for bit."""
    digest = hashlib.sha256()
    for name in sorted(networks):
        for key, value in networks[name].state_dict().items():
            digest.update(f"{name}.{key}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_replicas(networks: Mapping[str, nn.Module]) -> None:
    """Raise `RuntimeError` unless every worker holds the same bits. A barrier."""
    _, world = rank_and_world()
    if world == 1:
        return
    prints: list[str | None] = [None] * world
    dist.all_gather_object(prints, fingerprint(networks))
    if len(set(prints)) != 1:
        raise RuntimeError(f"the workers' networks differ: {prints}")
