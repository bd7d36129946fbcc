"""The fused worker's queue, as a plain object with trials in this process: every request is
answered, and requests for an epoch are gathered."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from ray import cloudpickle

from pipelines.tuning.fused.requests import TrialRequest
from pipelines.tuning.fused.worker import FusedWorker

SECONDS = 20.0
"""A reply that takes longer counts as none."""


@dataclass
class CountingTrials:
    """Trials that count their epochs. The queue of a real worker serves them."""

    vectorised: bool = False
    batches: list[list[str]] = field(default_factory=list)
    """The trials of each call of `run_epochs`."""
    forgotten: list[str] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)
    """Trials whose state cannot be read."""
    breaks: bool = False
    """Whether every epoch raises an error."""
    gate: threading.Event = field(default_factory=threading.Event)
    """An epoch waits for it."""

    def __post_init__(self) -> None:
        self.gate.set()

    def run_epochs(self, requests: Mapping[Future[Any], TrialRequest]) -> None:
        self.batches.append(sorted(request.trial_id for request in requests.values()))
        self.gate.wait(SECONDS)
        for number, (reply, request) in enumerate(requests.items()):
            if self.breaks and number:
                raise RuntimeError("the device is lost")
            if request.trial_id in self.failing:
                reply.set_exception(RuntimeError(f"{request.trial_id} has no checkpoint"))
            else:
                reply.set_result({"epoch": (request.epoch or 0) + 1})

    def save(self, trial: TrialRequest) -> bytes:
        if trial.trial_id in self.failing:
            raise RuntimeError(f"{trial.trial_id} has no state")
        return f"{trial.trial_id} at {trial.epoch}".encode()

    def load(self, trial: TrialRequest, state: bytes) -> int:
        return int(state.split()[-1])

    def copy(self, trial: TrialRequest, state: bytes) -> int | None:
        return trial.epoch

    def forget(self, trial_id: str) -> None:
        self.forgotten.append(trial_id)

    def describe(self) -> str:
        return "trained in turn"


def make_worker(trials: CountingTrials, capacity: int = 4) -> FusedWorker:
    return FusedWorker(cloudpickle.dumps({}), capacity, 1, "", lambda *_: trials)


def in_time(call: Callable[[], Any]) -> Any:
    """Return what a call returns; fail if it takes longer than `SECONDS`."""
    reply: Future[Any] = Future()

    def run() -> None:
        try:
            reply.set_result(call())
        except BaseException as error:
            reply.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return reply.result(timeout=SECONDS)


def request(name: str, epoch: int | None = None) -> TrialRequest:
    return TrialRequest(name, {}, epoch)


REQUESTS: dict[str, Callable[[FusedWorker], Any]] = {
    "run_epoch": lambda worker: worker.run_epoch(request("a", 3)),
    "save": lambda worker: worker.save(request("a", 3)),
    "load": lambda worker: worker.load(request("a", 3), b"a at 3"),
    "copy": lambda worker: worker.copy(request("a", 3), b"b at 5"),
    "describe": lambda worker: worker.describe(),
}
REPLIES = {
    "run_epoch": {"epoch": 4},
    "save": b"a at 3",
    "load": 3,
    "copy": 3,
    "describe": "trained in turn",
}


# -- replies --------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", REQUESTS)
def test_every_request_is_answered(name: str) -> None:
    worker = make_worker(CountingTrials())
    assert in_time(lambda: REQUESTS[name](worker)) == REPLIES[name]


@pytest.mark.parametrize("name", REQUESTS)
def test_a_worker_that_cannot_start_answers_with_the_error(name: str) -> None:
    def fail(*_: Any) -> CountingTrials:
        raise MemoryError("the device has no room for the images")

    worker = FusedWorker(cloudpickle.dumps({}), 4, 1, "", fail)
    assert worker.reserve("a", False)  # a trial does not know it yet
    for _ in range(2):  # and goes on answering
        with pytest.raises(MemoryError, match="no room for the images"):
            in_time(lambda: REQUESTS[name](worker))
    worker.leave("a")
    assert worker.reserve("a", False)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_payload_that_cannot_be_read_is_answered_too(name: str) -> None:
    worker = FusedWorker(b"no pickle", 4, 1, "")
    with pytest.raises(Exception, match=r"pickle|persistent|load|expected"):
        in_time(lambda: REQUESTS[name](worker))


def test_requests_sent_before_the_worker_has_started_are_answered_when_it_has() -> None:
    trials, started = CountingTrials(), threading.Event()

    def start_late(*_: Any) -> CountingTrials:
        started.wait(SECONDS)
        return trials

    worker = FusedWorker(cloudpickle.dumps({}), 4, 1, "", start_late)
    with ThreadPoolExecutor() as pool:
        replies = {name: pool.submit(call, worker) for name, call in REQUESTS.items()}
        started.set()
        assert {name: r.result(SECONDS) for name, r in replies.items()} == REPLIES


def test_an_action_that_fails_answers_its_own_request_alone() -> None:
    worker = make_worker(CountingTrials(failing={"b"}))
    with pytest.raises(RuntimeError, match="b has no state"):
        in_time(lambda: worker.save(request("b")))
    assert in_time(lambda: worker.save(request("a", 2))) == b"a at 2"


def test_an_epoch_that_fails_for_one_trial_is_reported_to_the_others() -> None:
    worker = make_worker(CountingTrials(failing={"b"}))
    with pytest.raises(RuntimeError, match="b has no checkpoint"):
        in_time(lambda: worker.run_epoch(request("b", 1)))
    assert in_time(lambda: worker.run_epoch(request("a", 1))) == {"epoch": 2}


def test_an_epoch_that_breaks_answers_every_trial_in_it() -> None:
    trials = CountingTrials(vectorised=True, breaks=True)
    worker = make_worker(trials, capacity=3)
    replies = _run_together(worker, trials, ["a", "b", "c"])
    finished = [reply for reply in replies if reply.exception(SECONDS) is None]
    assert len(finished) <= 1  # the first was done before the error
    for reply in replies:
        if reply not in finished:
            assert str(reply.exception(SECONDS)) == "the device is lost"
    trials.breaks = False
    assert in_time(lambda: worker.run_epoch(request("d", 0))) == {"epoch": 1}


# -- gathering ------------------------------------------------------------------------------------
def _run_together(
    worker: FusedWorker, trials: CountingTrials, names: list[str]
) -> list[Future[dict[str, Any]]]:
    """Send requests for an epoch of each trial while the worker is busy; return the replies."""
    for name in names:
        worker.reserve(name, True)
    pool = ThreadPoolExecutor(len(names) + 1)
    trials.gate.clear()
    breaks, trials.breaks = trials.breaks, False
    busy = pool.submit(worker.run_epoch, request("busy", 0))
    while not trials.batches:
        threading.Event().wait(0.01)
    replies = [pool.submit(worker.run_epoch, request(name, 0)) for name in names]
    while worker._requests.qsize() < len(names):
        threading.Event().wait(0.01)
    trials.breaks = breaks
    trials.gate.set()
    assert busy.result(SECONDS) == {"epoch": 1}
    return replies


@pytest.mark.parametrize("vectorised", [False, True])
def test_requests_that_wait_are_run_together(vectorised: bool) -> None:
    trials = CountingTrials(vectorised=vectorised)
    replies = _run_together(make_worker(trials), trials, ["a", "b", "c"])
    assert [reply.result(SECONDS) for reply in replies] == [{"epoch": 1}] * 3
    assert trials.batches[1:] == [["a", "b", "c"]]


def test_vectorised_trials_wait_for_each_other() -> None:
    trials = CountingTrials(vectorised=True)
    worker = make_worker(trials)
    for name in ("a", "b"):
        worker.reserve(name, False)
    with ThreadPoolExecutor() as pool:
        replies = [pool.submit(worker.run_epoch, request(name, 0)) for name in ("a", "b")]
        assert [reply.result(SECONDS) for reply in replies] == [{"epoch": 1}] * 2
    assert sorted(name for batch in trials.batches for name in batch) == ["a", "b"]


def test_a_vectorised_trial_does_not_wait_for_ever_for_one_that_sends_nothing() -> None:
    trials = CountingTrials(vectorised=True)
    worker = make_worker(trials)
    for name in ("a", "lost"):
        worker.reserve(name, False)
    assert in_time(lambda: worker.run_epoch(request("a", 0))) == {"epoch": 1}
    assert trials.batches == [["a"]]


def test_other_requests_are_served_in_their_order_beside_epochs() -> None:
    trials = CountingTrials(vectorised=True)
    worker = make_worker(trials)
    worker.reserve("a", False)
    assert in_time(lambda: worker.run_epoch(request("a", 0))) == {"epoch": 1}
    assert in_time(lambda: worker.save(request("a", 1))) == b"a at 1"
    worker.leave("a")
    assert in_time(worker.describe) == "trained in turn"
    assert trials.forgotten == ["a"]  # served before the request after it


# -- places ---------------------------------------------------------------------------------------
def test_a_worker_has_as_many_places_as_its_capacity() -> None:
    worker = make_worker(CountingTrials(), capacity=2)
    assert worker.reserve("a", False) and worker.reserve("b", False)
    assert worker.reserve("a", False)  # it has its place already
    assert not worker.reserve("c", False)
    assert worker.reserve("c", True)  # a trial that died may not have left
    worker.leave("a")
    assert not worker.reserve("d", False)
    worker.leave("b")
    assert worker.reserve("d", False)


def test_leaving_twice_changes_nothing() -> None:
    worker = make_worker(CountingTrials(), capacity=1)
    worker.reserve("a", False)
    worker.leave("a")
    worker.leave("a")
    assert worker.reserve("b", False) and not worker.reserve("c", False)
