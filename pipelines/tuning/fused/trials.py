"""A fused trial as Tune sees it: it asks a fused worker for one epoch after the other.

Tune starts a process for each trial that runs at a time, so this module imports neither torch nor
mlflow; the process is reused by the next trial. The state lies in the fused worker, which writes
it to disk at the end of every epoch, so that any worker can take the trial over.

A worker that dies takes no trial with it: each asks again, from its last checkpoint, once a worker
is there. Only the trial that a worker died of fails. Where several were trained as one, each is
tried alone for an epoch, and whichever kills the worker again was it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import ray
from ray import tune
from ray.exceptions import GetTimeoutError, RayActorError

from gen_models.core.config import nest
from pipelines.cluster.shared_store import require_shared
from pipelines.store.marker import StoreMarker
from pipelines.tuning.fused.marks import deaths, trials_when_died
from pipelines.tuning.fused.requests import TrialRequest

_RETURN_SECONDS = 300.0
"""How long a worker that died may take to come back."""
_REPLY_SECONDS = 20.0
"""How long a worker may take to reply: it may be importing torch, or wait for a node."""
_MOST_DEATHS = 5
"""How often in a row a worker may die of nothing that is known before a trial has its epoch."""
_STATE = "member.pt"
_POSITION = "position.json"


class FusedTrial(tune.Trainable):
    """One config, trained by one of the search's fused workers."""

    def setup(
        self,
        config: dict[str, Any],
        workers: Sequence[ray.actor.ActorHandle[Any]] = (),
        epochs: int = 0,
        marks: str = "",
        marker: StoreMarker | None = None,
    ) -> None:
        """`workers`: handles of `FusedWorker`. `epochs`: the most that a trial may run. `marks`:
        the folder in which workers mark what they train. `marker`: of the search's store."""
        assert marker
        require_shared(marker)
        self._workers, self._epochs, self._marks = workers, epochs, marks
        self._start(config)

    def _start(self, config: Mapping[str, Any]) -> None:
        self._sampled = nest(config)
        self._epoch: int | None = None
        self._copied: bytes | None = (
            None  # another trial's state, until an epoch has ended with it
        )
        self._copied_in = ""  # the worker's process that has it
        self._resident_id = self.trial_id
        before = [trials for trials in deaths(self._marks) if self.trial_id in trials]
        self._killed_a_worker = [self.trial_id] in before
        self._is_suspect = bool(before)
        self._deaths = 0  # of workers, since the last epoch
        self._worker, self._process = self._find_worker()

    def _request(self) -> TrialRequest:
        alone = self._killed_a_worker or self._is_suspect
        return TrialRequest(self.trial_id, self._sampled, self._epoch, alone)

    def _find_worker(self) -> tuple[ray.actor.ActorHandle[Any], str]:
        """Return a worker with room, and the id of its process; if none has any, because a trial
        died without leaving, the first one that replies. The order depends on the trial, to spread
        trials evenly."""
        first = crc32(self.trial_id.encode()) % len(self._workers)
        candidates = [*self._workers[first:], *self._workers[:first]]
        deadline = time.monotonic() + _RETURN_SECONDS
        while True:
            for force in (False, True):
                for worker in candidates:
                    if process := self._reserve(worker, force):
                        return worker, process
            if time.monotonic() > deadline:
                raise RuntimeError(f"none of the {len(candidates)} fused workers replies")
            time.sleep(0.5)

    def _reserve(self, worker: ray.actor.ActorHandle[Any], force: bool) -> str:
        """Return the id of a worker's process if it has room, else "". One that has died, or waits
        for a node, has none."""
        try:
            reply = worker.reserve.remote(self.trial_id, force)
            return str(ray.get(reply, timeout=_REPLY_SECONDS))
        except RayActorError:
            return ""
        except GetTimeoutError:
            worker.leave.remote(self.trial_id)
            return ""

    def _ask(self, request: Callable[[ray.actor.ActorHandle[Any]], Any] | None = None) -> Any:
        """Return a worker's reply to `request(worker)`, from another process if one dies."""
        while True:
            try:
                self._bring_copy()
                return ray.get(request(self._worker)) if request else None
            except RayActorError as error:
                self._worker_died(error)

    def _bring_copy(self) -> None:
        """Give the state that was copied to the worker, unless its process has it."""
        if self._copied is None or self._copied_in == self._process:
            return
        self._epoch = ray.get(self._worker.copy.remote(self._request(), self._copied))
        self._copied_in = self._process

    def _worker_died(self, error: RayActorError) -> None:
        """Go on with another process. Raises if the worker died of this trial."""
        trials = trials_when_died(self._marks, self._process)
        at = f"epoch {(self._epoch or 0) + 1}"
        if trials == [self.trial_id]:
            raise RuntimeError(
                f"the fused worker died while it trained {at} of this trial: {error}"
            )
        self._deaths += 1
        if self._deaths > _MOST_DEATHS:
            raise RuntimeError(f"fused workers died {self._deaths} times before {at}") from error
        self._is_suspect = self._is_suspect or self.trial_id in trials
        self._worker, self._process = self._find_worker()

    def step(self) -> dict[str, Any]:
        """Run an epoch. After a restart, first report the last trained epoch again: whoever was
        killed may not have received it."""
        report: dict[str, Any] = self._ask(lambda worker: worker.run_epoch.remote(self._request()))
        self._epoch = int(report["epoch"])
        self._copied, self._deaths, self._is_suspect = None, 0, False
        return {**report, "done": report["diverged"] > 0 or self._epoch >= self._epochs}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the trial's state, fetched from its worker."""
        state: bytes = self._ask(lambda worker: worker.save.remote(self._request()))
        position = {"trial_id": self.trial_id, "epoch": self._epoch}
        (Path(checkpoint_dir) / _STATE).write_bytes(state)
        (Path(checkpoint_dir) / _POSITION).write_text(json.dumps(position))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Resume from a checkpoint of this trial, or of one that it copies (population based
        training). A trial counts its own epochs, whichever trial it copies.

        Of its own checkpoints the one in its run folder counts, which is as new or newer: Tune
        saves what it knows of its trials every ten seconds or later.
        """
        folder = Path(checkpoint)
        try:
            position = json.loads((folder / _POSITION).read_text())
            state = (folder / _STATE).read_bytes()
        except (OSError, ValueError):
            return  # damaged: it goes on from its run folder
        if position["trial_id"] != self.trial_id:
            self._copied, self._copied_in = state, ""
            self._ask()
            return
        self._epoch = position["epoch"]
        at = self._ask(lambda worker: worker.load.remote(self._request(), state))
        self._epoch = at if at == position["epoch"] else None  # None: Tune has missed a report

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Become another trial, in the same process."""
        self._leave()
        self._start(new_config)
        return True

    def cleanup(self) -> None:
        """Leave the worker."""
        self._leave()

    def _leave(self) -> None:
        self._worker.leave.remote(self._resident_id)
