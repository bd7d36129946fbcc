"""The choice between float32 and bfloat16, by a short measurement on the device that trains.

Reduced precision pays where matrix products take most of a step's time, which depends on the
model's size as much as on the hardware. So a few steps of the run's first config are timed both
ways. The choice is recorded with the run; a run that is resumed or trained again does not measure
again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar, get_args

import ray
import torch

from gen_models.core.data import Batch, DataSpec
from gen_models.training.batches import TrainingImages
from gen_models.training.cpu import cpu_thread_settings
from gen_models.training.learner import Learner
from gen_models.training.precision import Precision
from pipelines.cluster.connection import Cluster
from pipelines.config.run import Run, Train, as_train
from pipelines.config.serialization import from_dict, to_dict
from pipelines.training.loop import make_learner

R = TypeVar("R", bound=Run)

_FASTER = 1.15
"""bf16 must be this many times as fast."""
_SECONDS = 3.0
"""A measurement ends after about as many seconds."""
_ROUNDS = 12


def resolve_precision(run: R, spec: DataSpec, cluster: Cluster, on_gpu: bool) -> R:
    """Return `run` with a precision in place of `auto`, measured on a device of the cluster."""
    if run.precision != "auto":
        return run
    content = to_dict(as_train(run))
    if cluster.is_local:
        return replace(run, precision=fastest_precision(content, spec, on_gpu))

    def measure() -> Precision:
        return fastest_precision(content, spec, on_gpu)

    task = ray.remote(measure).options(num_cpus=1, num_gpus=1 if on_gpu else 0)
    return replace(run, precision=ray.get(task.remote()))


def fastest_precision(content: Mapping[str, Any], spec: DataSpec, on_gpu: bool) -> Precision:
    """Return the precision whose fastest step is faster, of a few steps each way, in turn.

    The fastest, because other work on the machine can only slow a step down. `content`: a run's
    config, from `to_dict`. Thread settings are restored.
    """
    device = "cuda" if on_gpu else "cpu"
    run = from_dict(Train, content)
    generator = torch.Generator().manual_seed(0)
    shape = (run.batch_size, *spec.shape)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    data = TrainingImages(Batch.of(images.to(device)), run.batch_size, drop_last=False)
    batch = data.gather(torch.arange(run.batch_size, device=device))
    learners = {
        p: make_learner(replace(run, precision=p, compile="off"), data, spec.num_classes)
        for p in get_args(Precision)
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as a worker has
    try:
        with cpu_thread_settings():
            return faster_precision(_fastest_steps(learners, batch, on_gpu))
    finally:
        torch.set_num_threads(threads)


def faster_precision(seconds: Mapping[Precision, float]) -> Precision:
    """Return the precision to train in, given the seconds of a step in each."""
    return "bf16" if seconds["fp32"] > _FASTER * seconds["bf16"] else "fp32"


def _fastest_steps(
    learners: Mapping[Precision, Learner], batch: Batch, on_gpu: bool
) -> dict[Precision, float]:
    """Return the seconds of each learner's fastest step, of steps that they take in turn."""
    fastest = dict.fromkeys(learners, float("inf"))
    deadline = time.perf_counter() + _SECONDS
    for index in range(_ROUNDS):
        for name, learner in learners.items():
            start = time.perf_counter()
            learner.step(batch)
            if on_gpu:
                torch.cuda.synchronize()
            if index:  # the first warms up
                fastest[name] = min(fastest[name], time.perf_counter() - start)
        if index and time.perf_counter() > deadline:
            break
    return fastest
