"""How a search's trials are fused: how many populations there are, of how many members.

A population takes a GPU, or a CPU core. Its trials take next to nothing: a share of a resource
that every head node has, cut so that as many fit as there are members.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.exceptions import GetTimeoutError, RayActorError

from pipelines.config import Search

if TYPE_CHECKING:
    from pipelines.job import Job

_MEMBERS_ON_CPU = 2
"""Members of a population on a CPU core, where they run in turn: one trains while Tune decides
about another."""
_MEMBERS_ON_GPU = 16


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


def plan_fusion(run: Search, num_cpus: float, num_gpus: float, on_gpu: bool) -> Fusion:
    """How trials are spread over the devices."""
    most = min(run.trials, run.max_concurrent or run.trials)
    devices = max(1, int(num_gpus if on_gpu else num_cpus))
    own = _MEMBERS_ON_GPU if on_gpu else _MEMBERS_ON_CPU
    members = run.fuse if isinstance(run.fuse, int) else own
    members = max(1, min(members, ceil(most / devices)))
    return Fusion(min(devices, ceil(most / members)), members, on_gpu)


def start_populations(job: Job, fusion: Fusion) -> list[ray.actor.ActorHandle[Any]]:
    """Start the populations, on any nodes. One that dies is started again, without members."""
    from pipelines.population import PopulationActor

    actor = ray.remote(PopulationActor).options(
        num_cpus=1,
        num_gpus=1 if fusion.on_gpu else 0,
        max_restarts=-1,
        max_concurrency=4 * fusion.members + 8,
        scheduling_strategy="SPREAD",
    )
    return [actor.remote(job, fusion.members, 1) for _ in range(fusion.populations)]


def trainable(populations: list[ray.actor.ActorHandle[Any]], run: Search, fusion: Fusion) -> Any:
    """What Tune runs as a trial."""
    from pipelines.fused import FusedTrial

    share = int(10_000 / fusion.at_once) / 10_000  # Ray counts resources to four digits
    slot = {"CPU": 0, "node:__internal_head__": share}
    fused = tune.with_parameters(FusedTrial, populations=populations, epochs=run.epochs)
    return tune.with_resources(fused, slot)


def ask_notes(populations: list[ray.actor.ActorHandle[Any]]) -> list[str]:
    """What the populations have measured of how to run their members."""
    try:
        return list(ray.get([one.note.remote() for one in populations], timeout=10))
    except (RayActorError, GetTimeoutError):
        return []
