"""A fused worker: the process that trains many trials of a search on one device.

Trials send requests and wait for their replies. One thread serves the requests, in order; requests
for an epoch that arrive together can be trained as one. Every request is answered, also if the
worker could not start.

Trials hold a handle of this class, and Ray imports its module with it, so it imports no torch: the
serving thread does (`pipelines.tuning.fused.resident`).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import ray
from ray import cloudpickle

from pipelines.cluster.shared_store import require_shared
from pipelines.tuning.fused.marks import WorkerMarks
from pipelines.tuning.fused.requests import TrialRequest

if TYPE_CHECKING:
    from pipelines.training.payload import SharedDataset, TrainingPayload

_GATHER_SECONDS = 0.1
"""How long trials that are trained as one wait for the next one's request."""


@dataclass(frozen=True)
class Request:
    """A message to the serving thread, which always sets `reply`."""

    trial: TrialRequest | None
    """The trial that asks for its next epoch; None for any other request."""
    action: Callable[[TrialHost], Any]
    """What to do, if it is not an epoch."""
    reply: Future[Any] = field(default_factory=Future)


class TrialHost(Protocol):
    """What the serving thread needs of `pipelines.tuning.fused.resident.ResidentTrials`."""

    vectorised: bool
    """Whether trials are trained as one, so that requests for an epoch should be gathered."""

    def run_epochs(self, requests: Mapping[Future[Any], TrialRequest]) -> None:
        """Train each trial for an epoch, and set each future to its report or its error."""

    def save(self, trial: TrialRequest) -> bytes:
        """Return a trial's whole state."""

    def load(self, trial: TrialRequest, state: bytes) -> int:
        """Restore a trial, from `state` if its run folder has nothing as new; return its epoch."""

    def copy(self, trial: TrialRequest, state: bytes) -> int | None:
        """Put another trial's state into a trial; return the number of epochs that the trial has
        run, or None if it went on from this state before, so that its last report is due."""

    def forget(self, trial_id: str) -> None:
        """Drop a trial from memory."""

    def describe(self) -> str:
        """Return how trials are trained, and why."""


class FusedWorker:
    """A Ray actor with several threads: one serves, the others wait for replies.

    `make_trials` builds the resident trials, in the serving thread; tests put their own there.
    """

    # Ray calls the constructor again in the process that takes the place of one that died.

    def __init__(
        self,
        payload: bytes,
        capacity: int,
        num_threads: int,
        marks: str | Path,
        make_trials: Callable[[TrainingPayload, int, int, WorkerMarks], TrialHost] | None = None,
    ) -> None:
        """`payload`: the search's `TrainingPayload`, pickled. `capacity`: trials at a time.
        `num_threads`: of torch. `marks`: folder of the workers' marks."""
        from pipelines.cluster.process import import_compiler  # light: imports torch

        import_compiler()  # before there are threads that unpickle requests
        self._payload, self._capacity, self._num_threads = payload, capacity, num_threads
        self._marks = WorkerMarks(marks)
        self._make_trials = make_trials or _resident_trials
        self._reserved: set[str] = set()
        self._requests: queue.Queue[Request] = queue.Queue()
        threading.Thread(target=self._serve, daemon=True).start()

    # -- for trials ---------------------------------------------------------------------------
    def reserve(self, trial_id: str, force: bool) -> str:
        """Keep a place for a trial; return the id of this process, or "" if there is no place.
        `force`: even beyond capacity."""
        room = trial_id in self._reserved or len(self._reserved) < self._capacity
        if room or force:
            self._reserved.add(trial_id)
        return self._marks.process if room or force else ""

    def leave(self, trial_id: str) -> None:
        """Free the place of a trial that has ended, or goes on elsewhere."""
        self._reserved.discard(trial_id)
        self._put(lambda trials: trials.forget(trial_id))

    def run_epoch(self, trial: TrialRequest) -> dict[str, Any]:
        """Train a trial for the epoch after `trial.epoch`; return its report to Tune."""
        request = Request(trial, lambda trials: None)
        self._requests.put(request)
        report: dict[str, Any] = request.reply.result()
        return report

    def save(self, trial: TrialRequest) -> bytes:
        """Return a trial's whole state."""
        return bytes(self._put(lambda trials: trials.save(trial)).result())

    def load(self, trial: TrialRequest, state: bytes) -> int:
        """Restore a trial, from the state that Tune saved of it at `trial.epoch` if its run folder
        has nothing as new; return the epoch that it is at."""
        return int(self._put(lambda trials: trials.load(trial, state)).result())

    def copy(self, trial: TrialRequest, state: bytes) -> int | None:
        """Put another trial's state into a trial; return the number of epochs that the trial has
        run, or None if it went on from this state before, so that its last report is due."""
        epoch: int | None = self._put(lambda trials: trials.copy(trial, state)).result()
        return epoch

    def describe(self) -> str:
        """Return how trials are trained, and why; "" before there was a choice."""
        return str(self._put(lambda trials: trials.describe()).result())

    def _put(self, action: Callable[[TrialHost], Any]) -> Future[Any]:
        request = Request(None, action)
        self._requests.put(request)
        return request.reply

    # -- the serving thread -------------------------------------------------------------------
    def _serve(self) -> None:
        try:
            payload = cloudpickle.loads(self._payload)
            trials = self._make_trials(payload, self._capacity, self._num_threads, self._marks)
        except Exception as error:  # such as a device without memory for the images
            while True:
                self._requests.get().reply.set_exception(error)
        while True:
            epochs: dict[Future[Any], TrialRequest] = {}
            for request in self._gather(trials.vectorised):
                if request.trial:
                    epochs[request.reply] = request.trial
                else:
                    _answer(request, trials)
            if epochs:
                _run_epochs(trials, epochs)

    def _gather(self, vectorised: bool) -> list[Request]:
        """Return the waiting requests, once there is one; of trials that are trained as one, once
        all have sent theirs or none has come for a while."""
        requests = [self._requests.get()]
        while not self._requests.empty() or (vectorised and len(requests) < len(self._reserved)):
            try:
                requests.append(self._requests.get(timeout=_GATHER_SECONDS))
            except queue.Empty:
                break
        return requests


def _answer(request: Request, trials: TrialHost) -> None:
    try:
        request.reply.set_result(request.action(trials))
    except Exception as error:
        request.reply.set_exception(error)


def _run_epochs(trials: TrialHost, epochs: Mapping[Future[Any], TrialRequest]) -> None:
    error: Exception = RuntimeError("the fused worker did not run this trial's epoch")
    try:
        trials.run_epochs(epochs)
    except Exception as raised:
        error = raised
    for reply in epochs:
        if not reply.done():
            reply.set_exception(error)


def _resident_trials(
    payload: TrainingPayload, capacity: int, num_threads: int, marks: WorkerMarks
) -> TrialHost:
    from pipelines.tuning.fused.resident import ResidentTrials  # light: imports torch

    require_shared(payload.marker)
    dataset: SharedDataset = ray.get(payload.dataset[0])
    return ResidentTrials(payload, dataset, capacity, num_threads, marks)
