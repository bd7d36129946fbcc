"""Data-parallel training of one learner: W workers compute what one would.

Each worker runs its rows of the global batch; DDP averages the gradients; batch norm uses the
statistics of the global batch. Families know of none of it.
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

from gen_models.core.networks import convert_modules


def rank_and_world() -> tuple[int, int]:
    """Return this process's rank and the number of workers; (0, 1) without a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class _Sum(torch.autograd.Function):
    """Sum over the workers of a tensor; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return sum_over_workers(values.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return sum_over_workers(gradient.clone())


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the rows of all workers, on any device; workers may differ in their rows.

    Each worker computes the mean of its rows and the sum of squares about it; these are combined
    as by Chan, Golub & LeVeque 1983. Unlike E[x^2] - E[x]^2 it loses no digits where the mean is
    large beside the deviation.
    """

    @classmethod
    def of(cls, norm: nn.modules.batchnorm._BatchNorm) -> GlobalBatchNorm:
        """Make one with the parameters and buffers of `norm`, which it shares."""
        made = cls(
            norm.num_features,
            norm.eps,
            norm.momentum,
            norm.affine,
            norm.track_running_stats,
            device="meta",
        )
        made.weight, made.bias = norm.weight, norm.bias
        made.running_mean, made.running_var = norm.running_mean, norm.running_var
        made.num_batches_tracked = norm.num_batches_tracked
        return made.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected an input (N, C, ...), not of {input.dim()} dimensions")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, ...) over all dimensions but the channels C."""
        if not self.training and self.running_mean is not None:
            normed: Tensor = super().forward(input)
            return normed
        self._check_input_dim(input)
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        dims = [dim for dim in range(input.dim()) if dim != 1]
        rows = values.numel() // values.shape[1]
        per_channel = (-1, *[1] * (input.dim() - 2))
        # Less a constant near the mean, float32 holds the values' deviations without loss.
        pivot = values.detach().sum(dims) / max(rows, 1)  # a worker may have no rows
        centred = values - pivot.view(per_channel)
        offset = centred.sum(dims) / max(rows, 1)
        squares = (centred - offset.view(per_channel)).square().sum(dims)
        mean, var, total = _combine(pivot.double() + offset.double(), squares.double(), rows)
        if self.training and self.track_running_stats:
            self._track(mean.detach(), var.detach(), total)
        shift = (mean - pivot).to(values.dtype)
        scale = torch.rsqrt(var + self.eps).to(values.dtype)
        if self.weight is not None:
            scale = scale * self.weight
        normed = (centred - shift.view(per_channel)) * scale.view(per_channel)
        if self.bias is not None:
            normed = normed + self.bias.view(per_channel)
        return normed.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, rows: Tensor) -> None:
        """Update the running statistics, as torch's batch norm does."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum: Tensor | float = (
            1.0 / self.num_batches_tracked if self.momentum is None else self.momentum
        )
        unbiased = var * rows / (rows - 1)
        for running, value in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.copy_(torch.lerp(running, value.to(running.dtype), momentum))


def _combine(mean: Tensor, squares: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Combine the workers' means (C,) and sums of squares about them (C,) over their `rows`:
    mean (C,), biased variance (C,) and number of rows () of all workers, differentiable."""
    rank, world = rank_and_world()
    own = torch.cat([mean, squares, mean.new_full((1,), float(rows))])
    every = own.new_zeros(world, len(own))
    every = _Sum.apply(every.index_copy(0, torch.tensor([rank], device=own.device), own[None]))
    means, sums = every[:, :-1].chunk(2, dim=1)
    counts = every[:, -1:].detach()
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    return mean, (sums + counts * (means - mean).square()).sum(0) / total, total


def share_batch_norm(networks: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Convert every batch norm to one over all workers, if there are several: torch's
    `SyncBatchNorm` on CUDA devices, `GlobalBatchNorm` elsewhere. Parameters and names stay."""
    if rank_and_world()[1] == 1:
        return dict(networks)
    return {name: convert_modules(network, _global_norm) for name, network in networks.items()}


def _global_norm(module: nn.Module) -> nn.Module | None:
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    if not isinstance(module, norms):
        return None
    on_cuda = any(t.is_cuda for t in module.state_dict().values())
    if not on_cuda:
        return GlobalBatchNorm.of(module)
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    return converted


def wrap(networks: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Wrap the networks that have trainable parameters in DDP, if there are several workers."""
    if rank_and_world()[1] == 1:
        return dict(networks)
    return {
        name: _parallel(network) if any(p.requires_grad for p in network.parameters()) else network
        for name, network in networks.items()
    }


def _parallel(network: nn.Module) -> DistributedDataParallel:
    with warnings.catch_warnings():
        # The option that takes this one's place is not there in every torch that we support.
        warnings.filterwarnings("ignore", message="`broadcast_buffers`", category=FutureWarning)
        # Buffers follow from the global batch and the parameters: equal without a broadcast.
        return DistributedDataParallel(
            network, broadcast_buffers=False, gradient_as_bucket_view=True
        )


def sum_over_workers(values: Tensor) -> Tensor:
    """Sum `values` over the workers, in place."""
    if rank_and_world()[1] > 1:
        dist.all_reduce(values)
    return values


def gather(num: int, make: Callable[[int], Tensor], device: torch.device) -> list[Tensor]:
    """Return `make(i)` on `device` for each i below `num`, each made by one worker and sent to
    all."""
    rank, world = rank_and_world()
    own = {index: make(index) for index in range(rank, num, world)}
    if world == 1:
        return list(own.values())
    every: list[dict[int, Tensor]] = [{}] * world
    dist.all_gather_object(every, {index: tensor.cpu() for index, tensor in own.items()})
    received = {index: tensor for part in every for index, tensor in part.items()}
    return [own[i] if i in own else received[i].to(device) for i in range(num)]


def fingerprint(networks: Mapping[str, nn.Module]) -> str:
    """Hash every parameter and buffer, bit for bit."""
    digest = hashlib.sha256()
    for name in sorted(networks):
        for key, value in networks[name].state_dict().items():
            digest.update(f"{name}.{key}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_replicas(networks: Mapping[str, nn.Module]) -> None:
    """Raise `RuntimeError` unless the networks of all workers are equal bit for bit. A barrier."""
    if rank_and_world()[1] > 1:
        check_same(fingerprint(networks), "networks")


def check_same(value: object, what: str) -> None:
    """Raise `RuntimeError` unless all workers have the same `value`. `what`: its name, a plural. A
    barrier."""
    _, world = rank_and_world()
    if world == 1:
        return
    values = _values(value, world)
    if len(set(values)) != 1:
        raise RuntimeError(f"the workers' {what} differ: {values}")


def any_worker(value: bool) -> bool:
    """Return whether `value` is true on any worker. A barrier."""
    _, world = rank_and_world()
    return value if world == 1 else any(_values(value, world))


def _values(value: object, world: int) -> list[object]:
    """Return the `value` of each of `world` workers."""
    values: list[object] = [None] * world
    dist.all_gather_object(values, value)
    return values
