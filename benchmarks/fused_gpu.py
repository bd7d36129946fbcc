"""Many members on one GPU: images a second over all of them, against one at a time.

An MLP VAE on MNIST and two DCGANs, K members together in each of several ways and precisions,
against one learner in eager fp32 (tf32 off) and against 4 and 8 processes that share the GPU,
which is what fractional GPUs give. Everything is timed in this run, with the device's events,
batches and random numbers included. Beside it the floor: what the step's operations and bytes
take at the rates that a large product and a large copy were seen to have.

    python -m benchmarks.fused_gpu
    python -m benchmarks.fused_gpu --models mlp_vae --members 64 --profile

It needs neither Ray nor MLflow. What does not fit into memory is left out, and it says so.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import tyro

from benchmarks.contestants import Contestant, Measuring, Way, alone, contestants, together
from benchmarks.device import Ceilings, switch_off_tf32, synchronize
from benchmarks.figures import finish, say, setting
from gen_models import TrainingImages
from gen_models.training.precision import Precision

_PROCESS_SECONDS = 5.0


@dataclass(frozen=True)
class Options(Measuring):
    """Compare ways of training many models on one device."""

    models: tuple[str, ...] = ("mlp_vae", "dcgan32", "dcgan64")
    """Which."""
    members: tuple[int, ...] = (1, 4, 16, 64, 256)
    """K."""
    ways: tuple[Way, ...] = ("recorded", "compiled", "branches")
    """How members are trained together."""
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    """Of the members; what they are compared with is in fp32."""
    processes: tuple[int, ...] = (4, 8)
    """Processes that share the GPU."""
    width: int = 64
    """Channels of the DCGANs' largest feature map."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    switch_off_tf32()
    device = torch.device(options.device)
    ceilings = Ceilings.measure(device)
    figures = ceilings.figures()
    for name in options.models:
        contestant = contestants(options.width)[name]
        for figure, value in _compare(name, contestant, device, ceilings, options).items():
            figures[f"{name}_{figure}"] = value
    finish("fused_gpu", figures, found)


def _compare(
    name: str, contestant: Contestant, device: torch.device, ceilings: Ceilings, options: Options
) -> dict[str, float]:
    """Everything of one model."""
    data = contestant.images(device, options.data_root)
    work = contestant.work(data)
    one = contestant.learner(data)
    eager = contestant.batch_size / options.seconds(alone(one, data))
    say(f"{name}: one at a time, eager fp32 {eager:,.0f} images a second")
    figures = {"gflops_a_step": work.flops / 1e9, "mb_a_step": work.num_bytes / 1e6}
    figures["images_per_second_eager"] = eager
    best, of_floor = 0.0, 0.0
    for num, way, precision, seconds in _measurements(name, contestant, data, options):
        rate = num * contestant.batch_size / seconds
        floor = num * work.floor(ceilings, precision)
        say(
            f"{name}: {num} {way} {precision} {rate:,.0f} images a second, "
            f"{rate / eager:.1f} times eager, {floor / seconds:.2f} of the floor"
        )
        figures[f"images_per_second_{way}_{precision}_k{num}"] = rate
        if rate > best:
            best, of_floor = rate, floor / seconds
    figures |= {"over_one_at_a_time": best / eager, "of_floor": of_floor}
    for num in options.processes if device.type == "cuda" else ():
        rate = _in_processes(name, num, options)
        say(f"{name}: {num} processes, eager fp32 {rate:,.0f} images a second")
        figures[f"images_per_second_{num}_processes"] = rate
        figures[f"over_{num}_processes"] = best / rate
    return figures


def _measurements(
    name: str, contestant: Contestant, data: TrainingImages, options: Options
) -> Iterator[tuple[int, Way, Precision, float]]:
    """Members, way, precision, and seconds a step of all members."""
    for num in options.members:
        for way in options.ways:
            for precision in options.precisions:
                try:
                    seconds = options.seconds(together(contestant, data, num, way, precision))
                except torch.cuda.OutOfMemoryError:
                    say(f"{name}: {num} {way} {precision} do not fit into memory")
                else:
                    yield num, way, precision, seconds
                torch.cuda.empty_cache()


# -- processes -------------------------------------------------------------------------------
def _in_processes(name: str, num: int, options: Options) -> float:
    """Images a second of `num` processes together, each with one learner in eager fp32."""
    context = multiprocessing.get_context("spawn")
    ready, answers = context.Barrier(num), context.Queue()
    started = [
        context.Process(target=_one_process, args=(name, options, ready, answers))
        for _ in range(num)
    ]
    for process in started:
        process.start()
    rates = [float(answers.get(timeout=300)) for _ in started]
    for process in started:
        process.join()
    return sum(rates)


def _one_process(name: str, options: Options, ready: Any, answers: Any) -> None:
    """Warm up, wait for the others, train for some seconds."""
    switch_off_tf32()
    device = torch.device(options.device)
    contestant = contestants(options.width)[name]
    data = contestant.images(device, options.data_root)
    step = alone(contestant.learner(data), data)
    for _ in range(20):
        step()
    synchronize(device)
    ready.wait(timeout=300)
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < _PROCESS_SECONDS:
        for _ in range(10):
            step()
        synchronize(device)
        steps += 10
    answers.put(steps * contestant.batch_size / (time.perf_counter() - start))


if __name__ == "__main__":
    main()
