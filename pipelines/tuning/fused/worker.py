"""The process that trains the members of a search on one device, as its trials see it.

Trials ask for an epoch and wait; one thread does what is in the queue, and those that ask at the
same time can be trained as one. Trials hold a handle of this class, and Ray imports the class
with it, so this module imports no torch: the working thread does (`pipelines.tuning.fused.resident`).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ray import cloudpickle

from pipelines.training.payload import Job

if TYPE_CHECKING:
    from pipelines.tuning.fused.resident import Members

_COMPANY_SECONDS = 0.1
"""How long members that are trained as one wait for the next one to arrive."""


@dataclass
class Request:
    """A trial's wish for the epoch after `done`."""

    trial_id: str
    config: Mapping[str, Any]
    done: int | None
    """The last epoch of which the trial has heard; None after its start, or restart."""
    answer: Future[dict[str, Any]] = field(default_factory=Future)


class PopulationActor:
    """A Ray actor with several threads, of which one works."""

    def __init__(self, search: bytes, capacity: int, num_threads: int) -> None:
        """`search`: the search's `Job`, pickled."""
        self._search: Job = cloudpickle.loads(search)
        self._capacity, self._num_threads = capacity, num_threads
        self._reserved: set[str] = set()
        self._queue: queue.Queue[Request | Callable[[Members], None]] = queue.Queue()
        threading.Thread(target=self._work, daemon=True).start()

    def reserve(self, trial_id: str, force: bool) -> bool:
        """Whether there is room for the trial; then it is kept for it."""
        room = trial_id in self._reserved or len(self._reserved) < self._capacity
        if room or force:
            self._reserved.add(trial_id)
        return room or force

    def leave(self, trial_id: str) -> None:
        """The trial has ended, or goes on elsewhere."""
        self._reserved.discard(trial_id)
        self._queue.put(lambda members: members.forget(trial_id))

    def run_epoch(
        self, trial_id: str, config: Mapping[str, Any], done: int | None
    ) -> dict[str, Any]:
        """Train a trial for the epoch after `done`; what Tune is told of it."""
        request = Request(trial_id, config, done)
        self._queue.put(request)
        return request.answer.result()

    def save(self, trial_id: str, config: Mapping[str, Any], done: int | None) -> bytes:
        """A trial's whole state."""
        return bytes(self._call(lambda members: members.save(trial_id, config, done)))

    def load(
        self, trial_id: str, config: Mapping[str, Any], state: bytes, epoch: int | None
    ) -> int:
        """Put a saved state into a trial; the epochs that the trial has run: `epoch`, or as
        many as its journal holds."""
        return int(self._call(lambda members: members.load(trial_id, config, state, epoch)))

    def note(self) -> str:
        """How members are run, and why; empty before there was anything to choose."""
        return str(self._call(lambda members: members.population.describe()))

    def _call(self, work: Callable[[Members], Any]) -> Any:
        """Have the working thread do it."""
        answer: Future[Any] = Future()

        def do(members: Members) -> None:
            try:
                answer.set_result(work(members))
            except Exception as error:
                answer.set_exception(error)

        self._queue.put(do)
        return answer.result()

    # -- the working thread -----------------------------------------------------------------
    def _work(self) -> None:
        from pipelines.tuning.fused.resident import Members

        try:
            members = Members(self._search, self._capacity, self._num_threads)
        except Exception as error:  # such as a device without room for the images
            self._refuse(error)
        while True:
            requests = []
            for item in self._arrived(members.together):
                if isinstance(item, Request):
                    requests.append(item)
                else:
                    item(members)
            if requests:
                members.serve(requests)

    def _refuse(self, error: Exception) -> None:
        """Answer everybody that there is no population, and why."""
        while True:
            item = self._queue.get()
            if isinstance(item, Request):
                item.answer.set_exception(error)

    def _arrived(self, together: bool) -> list[Request | Callable[[Members], None]]:
        """What is in the queue, once something is; with members that are trained as one, once
        they all are, or none has come for a while."""
        items = [self._queue.get()]
        while not self._queue.empty() or (together and len(items) < len(self._reserved)):
            try:
                items.append(self._queue.get(timeout=_COMPANY_SECONDS))
            except queue.Empty:
                break
        return items
