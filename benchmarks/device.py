"""What a device can do, what a training step needs of it, and how long the step takes.

A floor is the longer of two times: the step's operations at the measured rate of a large matrix
product, and the bytes that it cannot but move at the measured bandwidth of a large copy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from gen_models import Batch, Learner
from gen_models.training.precision import Precision

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
_WARM_UP = 8
"""Steps that are not timed; the first ones record and compile."""


def switch_off_tf32() -> None:
    """Let fp32 mean fp32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def synchronize(device: torch.device) -> None:
    """Wait for what the device was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_a_step(
    run: Callable[[], object], device: torch.device, steps: int, repeats: int
) -> float:
    """The median over `repeats` of the time of `steps` steps, divided by them, after a warm-up;
    on a GPU between two events of its own."""
    for _ in range(_WARM_UP):
        run()
    return median(_seconds(run, device, steps) for _ in range(repeats)) / steps


def _seconds(run: Callable[[], object], device: torch.device, steps: int) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(steps):
            run()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize(device)
    begin.record()
    for _ in range(steps):
        run()
    end.record()
    torch.cuda.synchronize(device)
    return float(begin.elapsed_time(end)) / 1e3


@dataclass(frozen=True)
class Ceilings:
    """What the device was seen to do."""

    flops: dict[Precision, float]
    """Operations a second of a large product of random matrices; fp32 without tf32."""
    bandwidth: float
    """Bytes a second of a large copy on the device, read and written."""

    @staticmethod
    def measure(device: torch.device) -> Ceilings:
        """Half a second on a GPU, less of a smaller product on a CPU, whose bf16 may be slow."""
        large = device.type == "cuda"
        size, num_bytes = (8192, 2**31) if large else (256, 2**25)
        flops = {p: _matrix_rate(size, dtype, device) for p, dtype in _DTYPES.items()}
        source = torch.randint(0, 255, (num_bytes,), dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        copy = seconds_a_step(lambda: target.copy_(source), device, 5, 5)
        return Ceilings(flops, 2 * num_bytes / copy)

    def figures(self) -> dict[str, float]:
        """In the units that people know."""
        rates = {f"tflops_{p}": rate / 1e12 for p, rate in self.flops.items()}
        return {**rates, "copy_terabytes_a_second": self.bandwidth / 1e12}


def _matrix_rate(size: int, dtype: torch.dtype, device: torch.device) -> float:
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    seconds = seconds_a_step(lambda: torch.mm(a, b, out=out), device, 5, 5)
    return 2 * size**3 / seconds


@dataclass(frozen=True)
class Work:
    """What a step needs, whoever does it."""

    flops: float
    """Operations of its matrix products and convolutions, forwards and backwards."""
    num_bytes: float
    """Read or written once: parameters, Adam's two moments and averages, both; other networks'
    parameters and the images as they are kept, read. Activations are not counted: they need not
    leave the chip."""

    def floor(self, ceilings: Ceilings, precision: Precision) -> float:
        """Seconds."""
        return max(self.flops / ceilings.flops[precision], self.num_bytes / ceilings.bandwidth)


def count(learner: Learner, batch: Batch) -> Work:
    """The work of one step of a learner that is neither compiled nor recorded. It takes one."""
    with FlopCounterMode(display=False) as counter:
        learner.step(batch)
    values = batch.images.numel()
    return Work(counter.get_total_flops(), sum(_state_bytes(learner)) + values)


def _state_bytes(learner: Learner) -> list[int]:
    """Of each objective."""
    found = []
    for update in learner.updates:
        own = sum(p.numel() for p in update.parameters)
        others = sum(p.numel() for p in update.frozen)
        copies = 3 + bool(update.averages)
        found.append(4 * (2 * copies * own + others))
    return found
