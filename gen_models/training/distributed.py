"""One trial on several workers: what makes W workers compute what one would.

Each worker runs its rows of the global batch; DDP averages the gradients; batch norm sees the
statistics of the global batch. A family knows of none of it.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def rank_and_world() -> tuple[int, int]:
    """This process's rank and the number of workers; (0, 1) where there is one."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class _Sum(torch.autograd.Function):
    """The sum of a tensor over the workers; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return sum_over_workers(values.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return sum_over_workers(gradient.clone())


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the rows of all workers. torch's `SyncBatchNorm` is for GPUs alone; this
    one runs on either, and takes workers with unequal numbers of rows."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            normed: Tensor = super().forward(input)
            return normed
        rows = input.new_full((1,), float(input.numel() // input.shape[1]))
        sums = torch.cat([input.sum((0, 2, 3)), input.square().sum((0, 2, 3)), rows])
        sums = _Sum.apply(sums)
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
        wrapped[name] = _parallel(network) if trains else network
    return wrapped


def _parallel(network: nn.Module) -> DistributedDataParallel:
    with warnings.catch_warnings():
        # The option that takes this one's place is not there in every torch that we support.
        warnings.filterwarnings("ignore", message="`broadcast_buffers`", category=FutureWarning)
        # Buffers follow from the global batch and the parameters: equal without a broadcast.
        return DistributedDataParallel(
            network, broadcast_buffers=False, gradient_as_bucket_view=True
        )


def sum_over_workers(values: Tensor) -> Tensor:
    """The sum of `values` over the workers, in place."""
    if rank_and_world()[1] > 1:
        dist.all_reduce(values)
    return values


def gather(num: int, make: Callable[[int], Tensor], device: torch.device) -> list[Tensor]:
    """`make(i)` on the device for each i below `num`, made by one worker and given to all."""
    rank, world = rank_and_world()
    own = {index: make(index) for index in range(rank, num, world)}
    if world == 1:
        return list(own.values())
    every: list[dict[int, Tensor]] = [{}] * world
    dist.all_gather_object(every, {index: tensor.cpu() for index, tensor in own.items()})
    found = {index: tensor for part in every for index, tensor in part.items()}
    return [own[i] if i in own else found[i].to(device) for i in range(num)]


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
