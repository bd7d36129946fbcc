"""The processor that computes: results are equal to the last bit on one kind of it."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch


@cache
def processor_name(device_type: str) -> str:
    """Return the name of the GPU, or of the CPU with the instructions that torch uses of it, as
    `AMD EPYC 9R14, AVX512`."""
    if device_type == "cuda":
        return torch.cuda.get_device_name()
    return f"{_cpu_model()}, {torch.backends.cpu.get_cpu_capability()}"


def _cpu_model() -> str:
    """Return the model's name as Linux knows it; elsewhere, and where it has none, the
    architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
