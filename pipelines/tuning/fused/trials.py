"""A fused trial as Tune sees it: it asks a population for one epoch after the other.

Tune starts a process for each trial that runs at a time, so this module imports neither torch
nor MLflow; the process is reused by the next trial. State lives in the population
(`pipelines.tuning.fused.worker`), which writes it to disk at every epoch's end, so that a trial can go on
anywhere.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import ray
from ray import tune
from ray.exceptions import GetTimeoutError, RayActorError

_RETURN_SECONDS = 300.0
"""How long a population that died may take to come back."""
_ANSWER_SECONDS = 20.0
"""How long one may take to answer: it may be importing, or without a node."""
_STATE = "member.pt"
_POSITION = "position.json"


class FusedTrial(tune.Trainable):
    """One config, trained by one of the search's populations."""

    def setup(
        self,
        config: dict[str, Any],
        populations: Sequence[ray.actor.ActorHandle[Any]] = (),
        epochs: int = 0,
    ) -> None:
        """`populations`: actors of `PopulationActor`. `epochs`: what a trial may use."""
        self._populations, self._epochs = populations, epochs
        self._begin(config)

    def _begin(self, config: Mapping[str, Any]) -> None:
        self._own_config = config
        self._epoch: int | None = None
        self._member_id = self.trial_id
        self._population = self._find_population()

    def _find_population(self) -> ray.actor.ActorHandle[Any]:
        """One with room, or if none has any, for a trial died without leaving, the first one
        that answers. The search starts at a place of the trial's own, to spread trials."""
        first = crc32(self.trial_id.encode()) % len(self._populations)
        around = [*self._populations[first:], *self._populations[:first]]
        deadline = time.monotonic() + _RETURN_SECONDS
        while True:
            for force in (False, True):
                for population in around:
                    if self._reserve(population, force):
                        return population
            if time.monotonic() > deadline:
                raise RuntimeError(f"no population answers; {len(around)} were started")
            time.sleep(0.5)

    def _reserve(self, population: ray.actor.ActorHandle[Any], force: bool) -> bool:
        """Whether a population has room. One that has died, or whose node is yet to come, has
        none."""
        try:
            answer = population.reserve.remote(self.trial_id, force)
            return bool(ray.get(answer, timeout=_ANSWER_SECONDS))
        except RayActorError:
            return False
        except GetTimeoutError:
            population.leave.remote(self.trial_id)
            return False

    def step(self) -> dict[str, Any]:
        """An epoch. After a restart, first the last one that was trained before it, again:
        whoever was killed may not have heard of it."""
        report: dict[str, Any] = ray.get(
            self._population.run_epoch.remote(self.trial_id, self._own_config, self._epoch)
        )
        self._epoch = int(report["epoch"])
        return {**report, "done": report["diverged"] > 0 or self._epoch >= self._epochs}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        state: bytes = ray.get(
            self._population.save.remote(self.trial_id, self._own_config, self._epoch)
        )
        position = {"trial_id": self.trial_id, "epoch": self._epoch}
        (Path(checkpoint_dir) / _STATE).write_bytes(state)
        (Path(checkpoint_dir) / _POSITION).write_text(json.dumps(position))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from a trial's checkpoint: this trial's own, or one that it copies (population
        based training). A trial counts its own epochs, whomever it copies."""
        folder = Path(checkpoint)
        position = json.loads((folder / _POSITION).read_text())
        own = position["trial_id"] == self.trial_id
        state = (folder / _STATE).read_bytes()
        epoch = position["epoch"] if own else None
        self._epoch = ray.get(
            self._population.load.remote(self.trial_id, self._own_config, state, epoch)
        )

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._leave()
        self._begin(new_config)
        return True

    def cleanup(self) -> None:
        self._leave()

    def _leave(self) -> None:
        self._population.leave.remote(self._member_id)
