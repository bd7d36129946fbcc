"""Placement of fused trials: how many fused workers there are, and how many trials each trains.

A fused worker takes a GPU or a CPU core. Its trials take next to nothing: a share of a resource
that every head node has, cut so that exactly as many fit as are trained at a time. Given a share
of a CPU, Tune would start new trial processes faster than it reuses idle ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import ray
from ray import cloudpickle, tune
from ray.exceptions import RayError

import gen_models
from gen_models.core.contract import Model
from gen_models.core.data import DataSpec
from gen_models.core.errors import require
from gen_models.training.memory import footprint, step_bytes
from pipelines.cluster.resources import Devices
from pipelines.config.search import Search
from pipelines.store.layout import SearchFolder
from pipelines.store.marker import StoreMarker
from pipelines.tuning.fused.trials import FusedTrial
from pipelines.tuning.fused.worker import FusedWorker
from pipelines.tuning.strategy.space import largest

if TYPE_CHECKING:
    from pipelines.training.payload import TrainingPayload

Worker = Any
"""Ray's handle of a `FusedWorker`."""

_TRIALS_ON_CPU = 2
"""Trials of a worker on a CPU core, which trains them in turn: one trains while Tune decides about
the other."""
_TRIALS_ON_GPU = 16
_MEMORY_SHARE = 0.6
"""Share of a device's memory that trials may take."""
_NOTE_SECONDS = 10


@dataclass(frozen=True)
class Placement:
    """The fused workers of a search."""

    workers: int
    trials_per_worker: int
    """Trials that each trains at a time, at most."""
    on_gpu: bool

    @property
    def at_once(self) -> int:
        """Trials at a time."""
        return self.workers * self.trials_per_worker

    def describe(self) -> str:
        """Return the placement as text."""
        device = "GPU" if self.on_gpu else "CPU core"
        return (
            f"trials fused, {self.at_once} at once: {self.workers} fused workers of up to "
            f"{self.trials_per_worker} trials, each on a {device}"
        )


def plan_placement(run: Search, spec: DataSpec, devices: Devices) -> Placement:
    """Spread the trials over the devices.

    Raises `InputError` if `--fuse` asks for more trials than a device's memory holds.
    """
    most = min(run.trials, run.max_concurrent or run.trials)
    fit = _fitting_trials(run, spec, devices)
    if isinstance(run.fuse, int):
        trials = run.fuse
        if fit is not None:
            each = trial_bytes(run, spec, devices.on_gpu) / 2**20
            owner = "GPU" if devices.on_gpu else "machine"
            expected = f"at most {fit}: a trial takes some {each:.0f} MiB of the {owner}'s memory"
            require(trials <= fit, "fuse", trials, expected)
    else:
        trials = _TRIALS_ON_GPU if devices.on_gpu else _TRIALS_ON_CPU
        trials = trials if fit is None else min(trials, max(fit, 1))
    trials = max(1, min(trials, ceil(most / devices.num)))
    return Placement(min(devices.num, ceil(most / trials)), trials, devices.on_gpu)


def trial_bytes(run: Search, spec: DataSpec, on_gpu: bool) -> int:
    """Estimate the memory of a trial of the config's own size.

    On a GPU trials are trained as one, on a stacked copy of their state, and while a step is
    recorded there are two more copies. On a CPU they are mostly trained in turn, so that a step's
    memory counts once. Each holds the random numbers of a block of steps.
    """
    run = largest(run)
    model: Model = gen_models.family(run.family).Model(run.model, spec)
    size = footprint(model, run.optim, run.batch_size)
    as_one = run.execution == "vectorised" or (on_gpu and run.execution == "auto")
    state = 4 * size.state + step_bytes(model, run.batch_size) if as_one else size.state
    return state + size.draws


def _fitting_trials(run: Search, spec: DataSpec, devices: Devices) -> int | None:
    """Return how many trials of one worker fit into memory; None if its size is unknown."""
    if devices.memory is None:
        return None
    sharing = 1 if devices.on_gpu else devices.num
    room = _MEMORY_SHARE * devices.memory / sharing
    return int(room / trial_bytes(run, spec, devices.on_gpu))


@dataclass(frozen=True)
class FusedWorkers:
    """The fused workers of a search that runs."""

    handles: Sequence[Worker]
    marks: str
    """Folder in which they mark what they train (`pipelines.tuning.fused.marks`)."""


@contextmanager
def fused_workers(payload: TrainingPayload, placement: Placement) -> Iterator[FusedWorkers]:
    """Start fused workers on any nodes; at the end of the block they leave their devices.

    A worker that dies is started again by Ray, without trials.
    """
    search = SearchFolder.at(payload.folder)
    search.files.remove(search.workers)  # of a process that was killed, of which trials died too
    marks = search.workers / uuid4().hex
    marks.mkdir(parents=True)
    # Pickled, because Ray warns of an actor that may be restarted and holds a reference to an
    # object; this process keeps the object until the search ends.
    pickled = cloudpickle.dumps(payload)
    actor = ray.remote(FusedWorker).options(
        num_cpus=1,
        num_gpus=1 if placement.on_gpu else 0,
        max_restarts=-1,
        max_concurrency=4 * placement.trials_per_worker + 8,
        scheduling_strategy="SPREAD",
    )
    workers = [
        actor.remote(pickled, placement.trials_per_worker, 1, str(marks))
        for _ in range(placement.workers)
    ]
    try:
        yield FusedWorkers(workers, str(marks))
    finally:
        for worker in workers:  # Tune keeps handles for as long as this process lives
            ray.kill(worker)
        search.files.remove(search.workers)


def make_trainable(
    workers: FusedWorkers, run: Search, placement: Placement, marker: StoreMarker
) -> Any:
    """Return what Tune runs as a trial."""
    share = int(10_000 / placement.at_once) / 10_000  # Ray counts resources to four digits
    resources = {"CPU": 0, "node:__internal_head__": share}
    trainable = tune.with_parameters(
        FusedTrial,
        workers=list(workers.handles),
        epochs=run.epochs,
        marks=workers.marks,
        marker=marker,
    )
    return tune.with_resources(trainable, resources)


def execution_notes(workers: FusedWorkers) -> list[str]:
    """Return how the workers train their trials, vectorised or in turn, and why; each note
    once."""
    try:
        notes = ray.get(
            [worker.describe.remote() for worker in workers.handles], timeout=_NOTE_SECONDS
        )
    except RayError:  # a worker is dead, busy, or could not start: its trials say why
        return []
    return list(dict.fromkeys(note for note in notes if note))
