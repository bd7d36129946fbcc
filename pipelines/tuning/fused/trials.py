"""A fused trial as Tune sees it: it asks a fused worker for one epoch after the other.

Tune starts a process for each trial that runs at a time, so this module imports neither torch nor
mlflow; the process is reused by the next trial. The state lies in the fused worker, which writes
it to disk at the end of every epoch, so that any worker can take the trial over.
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

from pipelines.tuning.fused.requests import TrialRequest

_RETURN_SECONDS = 300.0
"""How long a worker that died may take to come back."""
_REPLY_SECONDS = 20.0
"""How long a worker may take to reply: it may be importing torch, or wait for a node."""
_STATE = "member.pt"
_POSITION = "position.json"


class FusedTrial(tune.Trainable):
    """One config, trained by one of the search's fused workers."""

    def setup(
        self,
        config: dict[str, Any],
        workers: Sequence[ray.actor.ActorHandle[Any]] = (),
        epochs: int = 0,
    ) -> None:
        """`workers`: handles of `FusedWorker`. `epochs`: the most that a trial may run."""
        self._workers, self._epochs = workers, epochs
        self._start(config)

    def _start(self, config: Mapping[str, Any]) -> None:
        self._sampled = config
        self._epoch: int | None = None
        self._resident_id = self.trial_id
        self._worker = self._find_worker()

    def _request(self) -> TrialRequest:
        return TrialRequest(self.trial_id, self._sampled, self._epoch)

    def _find_worker(self) -> ray.actor.ActorHandle[Any]:
        """Return a worker with room; if none has any, because a trial died without leaving, the
        first one that replies. The order depends on the trial, to spread trials evenly."""
        first = crc32(self.trial_id.encode()) % len(self._workers)
        candidates = [*self._workers[first:], *self._workers[:first]]
        deadline = time.monotonic() + _RETURN_SECONDS
        while True:
            for force in (False, True):
                for worker in candidates:
                    if self._reserve(worker, force):
                        return worker
            if time.monotonic() > deadline:
                raise RuntimeError(f"none of the {len(candidates)} fused workers replies")
            time.sleep(0.5)

    def _reserve(self, worker: ray.actor.ActorHandle[Any], force: bool) -> bool:
        """Return whether a worker has room. One that has died, or waits for a node, has none."""
        try:
            reply = worker.reserve.remote(self.trial_id, force)
            return bool(ray.get(reply, timeout=_REPLY_SECONDS))
        except RayActorError:
            return False
        except GetTimeoutError:
            worker.leave.remote(self.trial_id)
            return False

    def step(self) -> dict[str, Any]:
        """Run an epoch. After a restart, first report the last trained epoch again: whoever was
        killed may not have received it."""
        report: dict[str, Any] = ray.get(self._worker.run_epoch.remote(self._request()))
        self._epoch = int(report["epoch"])
        return {**report, "done": report["diverged"] > 0 or self._epoch >= self._epochs}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the trial's state, fetched from its worker."""
        state: bytes = ray.get(self._worker.save.remote(self._request()))
        position = {"trial_id": self.trial_id, "epoch": self._epoch}
        (Path(checkpoint_dir) / _STATE).write_bytes(state)
        (Path(checkpoint_dir) / _POSITION).write_text(json.dumps(position))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Resume from a checkpoint of this trial, or of one that it copies (population based
        training). A trial counts its own epochs, whichever trial it copies."""
        folder = Path(checkpoint)
        position = json.loads((folder / _POSITION).read_text())
        is_own = position["trial_id"] == self.trial_id
        self._epoch = position["epoch"] if is_own else None
        state = (folder / _STATE).read_bytes()
        self._epoch = ray.get(self._worker.load.remote(self._request(), state))

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
