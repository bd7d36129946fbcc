"""Tune's callback: Tune's events become the recorder's."""

import pickle
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.store.files import StoreError
from pipelines.store.journal import EpochRecord
from pipelines.tuning.callbacks import SearchStopper, TuneEvents, _error_text, events_go_to
from pipelines.tuning.recorder import Event, TrialEnded, TrialReported, TrialStarted


class Handler:
    """Keeps the events; the journal of the trial `a` holds the epochs up to `epoch`."""

    metric = "val/nll"

    def __init__(self, epoch: int = 0, diverged: bool = False) -> None:
        self.events: list[Event] = []
        self.epoch, self.diverged = epoch, diverged
        self.running: list[str] = []
        self.may_end = False

    def handle(self, event: Event) -> None:
        self.events.append(event)

    def step(self, now: float, running: Callable[[], Collection[str]]) -> None:
        self.running = list(running())

    def last_record(self, trial_id: str) -> EpochRecord | None:
        if not self.epoch:
            return None
        return EpochRecord(self.epoch, {"diverged": float(self.diverged)}, {})


def make_trial(epoch: int | None = None, error: str | None = None) -> Any:
    return SimpleNamespace(
        trial_id="a",
        config={"optim": {"lr": 0.1}},
        last_result={"epoch": epoch} if epoch else None,
        error_file=None,
        get_error=lambda: error,
    )


def test_a_trial_starts_after_its_last_recorded_epoch() -> None:
    for epoch in (0, 4):
        handler = Handler(epoch)
        with events_go_to("s", handler) as callback:
            callback.on_trial_start(1, [], make_trial())
        assert handler.events == [TrialStarted("a", {"optim": {"lr": 0.1}}, epoch)]


def test_a_report_has_the_metric_that_ranks() -> None:
    handler = Handler()
    result = {"epoch": 3, "val/nll": 2.5, "val/other": 9.0, "diverged": 0}
    with events_go_to("s", handler) as callback:
        callback.on_trial_result(1, [], make_trial(), result)
        callback.on_trial_result(1, [], make_trial(), {**result, "diverged": 1, "val/nll": 1e30})
    first, second = handler.events
    assert isinstance(first, TrialReported) and isinstance(second, TrialReported)
    assert (first.trial_id, first.epoch, first.value, first.diverged) == ("a", 3, 2.5, False)
    assert (second.value, second.diverged) == (1e30, True)
    assert first.time <= second.time


@pytest.mark.parametrize("diverged", [False, True])
def test_the_end_of_a_trial_has_the_epochs_of_tune_and_of_the_journal(diverged: bool) -> None:
    handler = Handler(epoch=5, diverged=diverged)
    with events_go_to("s", handler) as callback:
        callback.on_trial_complete(1, [], make_trial(epoch=4))
    assert handler.events == [TrialEnded("a", 4, 5, diverged, None)]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("Traceback\n  line\nRuntimeError: out of memory\n", "RuntimeError: out of memory"),
        (None, "its process died without an error message"),
    ],
)
def test_the_error_of_a_trial_is_its_last_line(error: str | None, message: str) -> None:
    handler = Handler()
    with events_go_to("s", handler) as callback:
        callback.on_trial_error(1, [], make_trial(error=error))
    assert handler.events == [TrialEnded("a", 0, 0, False, message)]


@pytest.mark.parametrize(
    "line",
    [
        "OSError: [Errno 28] no space left (0.0 MiB free): '/a'",
        "pipelines.store.files.UnsharedStoreError: store = '/a': expected a folder",
    ],
)
def test_a_trial_that_cannot_use_the_store_ends_the_search(line: str) -> None:
    """At its first failure, without the retries of a trial; none has failed."""
    handler, trial = Handler(), make_trial(error=f"Traceback\n{line}\n")
    with events_go_to("s", handler) as callback:
        for event in (callback.on_trial_recover, callback.on_trial_error):
            with pytest.raises(StoreError):
                event(1, [], trial)
    assert handler.events == []


def test_a_pickled_callback_finds_the_search_of_the_process_that_resumes_it() -> None:
    """Tune pickles its callbacks with the state of a search."""
    with events_go_to("s", Handler()) as callback:
        content = pickle.dumps(callback)
    assert len(content) < 200
    again: TuneEvents = pickle.loads(content)
    with pytest.raises(KeyError):  # no search runs
        again.on_trial_start(1, [], make_trial())
    resumed = Handler(epoch=2)
    with events_go_to("s", resumed):
        again.on_trial_start(1, [], make_trial())
    assert resumed.events == [TrialStarted("a", {"optim": {"lr": 0.1}}, 2)]


def test_tune_ends_when_the_search_does() -> None:
    stopper: SearchStopper = pickle.loads(pickle.dumps(SearchStopper("s")))
    handler = Handler()
    with events_go_to("s", handler):
        assert not stopper.stop_all() and not stopper("a", {"epoch": 3})
        handler.may_end = True
        assert stopper.stop_all()


def test_the_search_hears_which_trials_train_at_each_step() -> None:
    handler = Handler()
    states = {"a": "RUNNING", "b": "PAUSED", "c": "PENDING", "d": "TERMINATED", "e": "RUNNING"}
    trials: Any = [SimpleNamespace(trial_id=n, status=state) for n, state in states.items()]
    with events_go_to("s", handler) as callback:
        callback.on_step_begin(1, trials)
    assert handler.running == ["a", "e"]


def test_a_search_that_fails_is_forgotten_too() -> None:
    with pytest.raises(RuntimeError), events_go_to("s", Handler()) as callback:
        raise RuntimeError
    with pytest.raises(KeyError):
        callback.on_trial_complete(1, [], make_trial())


def test_the_error_is_read_where_tune_has_just_written_it(tmp_path: Path) -> None:
    """Tune copies it to the search's folder, where `get_error` looks, some seconds later."""
    path = tmp_path / "error.txt"
    path.write_text("Failure # 1\nRuntimeError: out of memory\n")
    trial = SimpleNamespace(error_file=str(path), get_error=lambda: None)
    assert _error_text(trial).endswith("RuntimeError: out of memory\n")
