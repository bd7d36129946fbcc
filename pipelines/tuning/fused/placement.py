"""How a search's trials are fused: how many populations there are, of how many members.

A population takes a GPU, or a CPU core. Its trials take next to nothing: a share of a resource
that every head node has, cut so that as many fit as there are members.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, get_type_hints

import ray
from ray import cloudpickle, tune
from ray.exceptions import GetTimeoutError, RayActorError

import gen_models
from gen_models.core.contract import Model
from gen_models.core.data import DataSpec
from gen_models.core.errors import require
from gen_models.training.memory import footprint
from pipelines.config.run import Search

if TYPE_CHECKING:
    from pipelines.training.payload import Job

_MEMBERS_ON_CPU = 2
"""Members of a population on a CPU core, where they run in turn: one trains while Tune decides
about another."""
_MEMBERS_ON_GPU = 16
_OF_MEMORY = 0.6
"""The part of a device's memory that members may take."""


@dataclass(frozen=True)
class Devices:
    """What populations can be put on."""

    num: int
    on_gpu: bool
    memory: int | None
    """Bytes of each GPU, or of all CPU cores together; None where that is not known."""


@dataclass(frozen=True)
class Fusion:
    """Populations of a search."""

    populations: int
    members: int
    """Trials of each at a time."""
    on_gpu: bool

    @property
    def at_once(self) -> int:
        """Trials at a time."""
        return self.populations * self.members

    def describe(self) -> str:
        """For the user."""
        place = "GPU" if self.on_gpu else "CPU core"
        return (
            f"trials fused, {self.at_once} at once: {self.populations} populations of up to "
            f"{self.members}, each on a {place}"
        )


def plan_fusion(run: Search, spec: DataSpec, devices: Devices) -> Fusion:
    """How trials are spread over the devices.

    Raises `InputError` where `--fuse` asks for more members than a device's memory holds.
    """
    most = min(run.trials, run.max_concurrent or run.trials)
    fit = _most_members(run, spec, devices)
    if isinstance(run.fuse, int):
        members = run.fuse
        if fit is not None:
            each = _member_bytes(run, spec, devices.on_gpu) / 2**20
            place = "GPU" if devices.on_gpu else "machine"
            expected = f"at most {fit}: a member takes some {each:.0f} MiB of the {place}'s memory"
            require(members <= fit, "fuse", members, expected)
    else:
        members = _MEMBERS_ON_GPU if devices.on_gpu else _MEMBERS_ON_CPU
        members = members if fit is None else min(members, max(fit, 1))
    members = max(1, min(members, ceil(most / devices.num)))
    return Fusion(min(devices.num, ceil(most / members)), members, devices.on_gpu)


def _member_bytes(run: Search, spec: DataSpec, on_gpu: bool) -> int:
    """Of a member of the config's own size. On a GPU members take their steps as one, on a
    stacked copy of their state, and while a step is recorded there are two more; on a CPU in
    turn, so what a step takes counts once. Each has the random numbers of a block of steps."""
    model: Model = gen_models.family(run.family).Model(run.model, spec)
    found = footprint(model, run.optim, run.batch_size)
    own = 4 * found.state + found.step if on_gpu else found.state
    return own + found.draws


def _most_members(run: Search, spec: DataSpec, devices: Devices) -> int | None:
    """Members of one population that fit into memory."""
    if devices.memory is None:
        return None
    shared = 1 if devices.on_gpu else devices.num
    room = _OF_MEMORY * devices.memory / shared
    return int(room / _member_bytes(run, spec, devices.on_gpu))


def kept_apart(run: Search, spec: DataSpec, searched: Iterable[str]) -> list[str]:
    """The searched settings in which members that are trained as one must agree."""
    module = gen_models.family(run.family)
    widths = module.Model(run.model, spec).widths
    hints = get_type_hints(module.Config)
    fields = [name.removeprefix("model.") for name in searched if name.startswith("model.")]
    return [f"model.{f}" for f in fields if hints[f] is not float and f not in widths]


@contextmanager
def populations(job: Job, fusion: Fusion) -> Iterator[list[ray.actor.ActorHandle[Any]]]:
    """Populations on any nodes, which leave their devices after the block to the next search.
    One that dies is started again, without members."""
    from pipelines.tuning.fused.worker import PopulationActor

    # Ray warns of an actor that may be restarted and is given a reference to an object, which
    # could be gone by then; this process holds it until the search ends.
    pickled = cloudpickle.dumps(job)
    actor = ray.remote(PopulationActor).options(
        num_cpus=1,
        num_gpus=1 if fusion.on_gpu else 0,
        max_restarts=-1,
        max_concurrency=4 * fusion.members + 8,
        scheduling_strategy="SPREAD",
    )
    started = [actor.remote(pickled, fusion.members, 1) for _ in range(fusion.populations)]
    yield started
    for one in started:  # Tune keeps handles for as long as this process lives
        ray.kill(one)


def trainable(started: list[ray.actor.ActorHandle[Any]], run: Search, fusion: Fusion) -> Any:
    """What Tune runs as a trial."""
    from pipelines.tuning.fused.trials import FusedTrial

    share = int(10_000 / fusion.at_once) / 10_000  # Ray counts resources to four digits
    slot = {"CPU": 0, "node:__internal_head__": share}
    fused = tune.with_parameters(FusedTrial, populations=started, epochs=run.epochs)
    return tune.with_resources(fused, slot)


def ask_notes(started: list[ray.actor.ActorHandle[Any]]) -> list[str]:
    """What the populations have measured of how to run their members."""
    try:
        return list(ray.get([one.note.remote() for one in started], timeout=10))
    except (RayActorError, GetTimeoutError):
        return []
