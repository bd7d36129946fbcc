"""The recorder of a search: every event in every state, the actions and the next state."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from pipelines.config.objectives import Mode, Objective
from pipelines.store.journal import RunStatus
from pipelines.tuning.recorder import (
    DELIVER_SECONDS,
    Action,
    Closed,
    CloseTrial,
    DeliverTrial,
    EndDue,
    Event,
    OpenTrial,
    SearchState,
    TrialEnded,
    TrialReported,
    TrialStarted,
    TuneEnded,
)

EPOCHS = 9
CONFIG = {"optim": {"lr": 0.1}}
STARTED = TrialStarted("a", CONFIG, 0)
RESTARTED = TrialStarted("a", CONFIG, 4)
REPORTED = TrialReported("a", 3, 1.5, diverged=False, time=100.0)
STOPPED = TrialEnded("a", reported_epoch=3, recorded_epoch=4, diverged=False)
COMPLETED = TrialEnded("a", reported_epoch=8, recorded_epoch=9, diverged=False)
DIVERGED = TrialEnded("a", reported_epoch=3, recorded_epoch=4, diverged=True)
FAILED = TrialEnded("a", reported_epoch=3, recorded_epoch=4, diverged=False, error="no room")
OPEN = OpenTrial("a", CONFIG)
ENDED: tuple[RunStatus, ...] = (
    *("completed", "stopped_early", "diverged", "failed", "interrupted", "superseded"),
)


def make_state(mode: Mode = "min") -> SearchState:
    return SearchState(Objective("val/x", mode), EPOCHS)


def in_state(name: str) -> SearchState:
    """Return a search whose trial `a` is unknown, running, or has ended in one of the ways."""
    state = make_state()
    if name == "running":
        state.handle(STARTED)
    elif name != "unknown":
        state.restore({"a": name}, None)  # type: ignore[dict-item]
    return state


def state_of(state: SearchState) -> str:
    """Return the state of the trial `a`."""
    assert not (state.running.keys() & state.ended.keys())
    return "running" if "a" in state.running else state.ended.get("a", "unknown")


CLOSED = Closed({"a": 4})
DUE = EndDue("asked to", running=["a"])
LACKING = TuneEnded(known=["b"], recorded={"a": 4})
KNOWING = TuneEnded(known=["a", "b"], recorded={"a": 4})
INTERRUPTED = CloseTrial("a", "interrupted", 4)
SUPERSEDED = CloseTrial("a", "superseded", 4, "tried again: Tune had not saved it")

# state before, event, actions, state after
TABLE: list[tuple[str, Event, list[Action], str]] = [
    ("unknown", STARTED, [OPEN], "running"),
    ("unknown", RESTARTED, [OPEN], "running"),
    ("unknown", REPORTED, [], "unknown"),
    ("unknown", STOPPED, [CloseTrial("a", "stopped_early", 3)], "stopped_early"),
    ("unknown", COMPLETED, [CloseTrial("a", "completed", 9)], "completed"),
    ("unknown", DIVERGED, [CloseTrial("a", "diverged", 4)], "diverged"),
    ("unknown", FAILED, [CloseTrial("a", "failed", 3, "no room")], "failed"),
    ("unknown", LACKING, [SUPERSEDED], "superseded"),
    ("unknown", KNOWING, [], "unknown"),
    ("unknown", CLOSED, [INTERRUPTED], "interrupted"),
    ("unknown", DUE, [], "unknown"),
    ("running", STARTED, [OPEN], "running"),
    ("running", RESTARTED, [OPEN], "running"),
    ("running", REPORTED, [DeliverTrial("a", 3)], "running"),
    ("running", STOPPED, [CloseTrial("a", "stopped_early", 3)], "stopped_early"),
    ("running", COMPLETED, [CloseTrial("a", "completed", 9)], "completed"),
    ("running", DIVERGED, [CloseTrial("a", "diverged", 4)], "diverged"),
    ("running", FAILED, [CloseTrial("a", "failed", 3, "no room")], "failed"),
    ("running", LACKING, [], "running"),  # this process has started it
    ("running", KNOWING, [], "running"),
    ("running", CLOSED, [INTERRUPTED], "interrupted"),
    ("running", DUE, [], "running"),
]
for _status in ENDED:
    TABLE += [
        (_status, STARTED, [OPEN], "running"),
        (_status, RESTARTED, [OPEN], "running"),
        *((_status, event, [], _status) for event in (REPORTED, STOPPED, COMPLETED)),
        *((_status, event, [], _status) for event in (DIVERGED, FAILED, KNOWING, DUE)),
        # `Closed` names trials without an outcome, so none of these.
        (_status, Closed({}), [], _status),
    ]


@pytest.mark.parametrize(("before", "event", "actions", "after"), TABLE)
def test_transitions(before: str, event: Event, actions: list[Action], after: str) -> None:
    state = in_state(before)
    assert state_of(state) == before
    assert state.handle(event) == actions
    assert state_of(state) == after


def test_the_table_has_every_event_in_every_state() -> None:
    states = {"unknown", "running", *ENDED}
    events = {type(event) for _, event, _, _ in TABLE}
    assert events == set(Event.__args__)  # type: ignore[attr-defined]
    covered = {(before, type(event)) for before, event, _, _ in TABLE}
    assert covered == {(state, event) for state in states for event in events}


@pytest.mark.parametrize("status", ["superseded", "interrupted", "failed"])
def test_a_trial_that_tune_lost_is_superseded_also_if_an_earlier_process_closed_it(
    status: RunStatus,
) -> None:
    state = in_state(status)
    assert state.handle(LACKING) == [SUPERSEDED]
    assert state_of(state) == "superseded"


def test_no_trial_is_superseded_where_tune_knows_none() -> None:
    """Tune ended before it had started a trial: its earlier ones are not lost."""
    state = in_state("interrupted")
    assert state.handle(TuneEnded(known=[], recorded={"a": 4})) == []
    assert state_of(state) == "interrupted"


def test_a_trial_that_this_process_started_is_not_superseded() -> None:
    state = in_state("unknown")
    state.handle(STARTED)
    state.handle(STOPPED)
    assert state.handle(LACKING) == []
    assert state_of(state) == "stopped_early"


# -- the end of the search before all its trials have ended ---------------------------------------
B_REPORTED = replace(REPORTED, trial_id="b")


def ending(*running: str) -> SearchState:
    """Return a search with the running trials a and b that is to end."""
    state = in_state("running")
    state.handle(TrialStarted("b", CONFIG, 0))
    state.handle(EndDue("asked to", running))
    return state


def test_a_search_ends_once_each_running_epoch_has_ended() -> None:
    state = ending("a", "b")
    assert not state.may_end
    state.handle(REPORTED)
    state.handle(replace(REPORTED, epoch=4))
    assert not state.may_end  # b's epoch runs
    state.handle(TrialStarted("c", CONFIG, 0))  # in the place of one that has ended
    state.handle(B_REPORTED)
    assert state.may_end
    closed = state.handle(Closed({"a": 4, "b": 3, "c": 0}))
    assert closed == [
        CloseTrial(name, "interrupted", epoch, "asked to")
        for name, epoch in (("a", 4), ("b", 3), ("c", 0))
    ]


@pytest.mark.parametrize("event", [STOPPED, COMPLETED, DIVERGED, FAILED])
def test_a_trial_that_ends_is_waited_for_no_longer(event: TrialEnded) -> None:
    state = ending("a")
    state.handle(event)
    assert state.may_end


def test_a_search_that_is_not_to_end_goes_on() -> None:
    state = in_state("running")
    state.handle(REPORTED)
    assert not state.may_end and not state.ending


def test_a_search_without_a_running_trial_ends_at_once() -> None:
    assert ending().may_end


def test_the_first_reason_to_end_counts() -> None:
    state = ending("a")
    state.handle(EndDue("another", ["a", "b"]))
    assert state.ending == "asked to"
    state.handle(REPORTED)
    assert state.may_end


def test_no_trial_is_superseded_where_tune_was_ended() -> None:
    """Tune may not have taken up again all that is recorded."""
    state = ending("a")
    assert state.handle(TuneEnded(known=["a"], recorded={"a": 4, "z": 2})) == []


# -- the end of a trial -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("reported", "recorded", "diverged", "error", "status", "last_epoch"),
    [
        (9, 9, False, None, "completed", 9),
        (8, 9, False, None, "completed", 9),  # Tune missed the last report
        (3, 3, False, None, "stopped_early", 3),
        (3, 5, False, None, "stopped_early", 3),  # the worker trained on before it learned of it
        (0, 0, False, None, "stopped_early", 0),
        (3, 4, True, None, "diverged", 4),
        (9, 9, True, None, "diverged", 9),
        (3, 9, False, "died", "failed", 3),
        (3, 4, True, "died", "failed", 3),
        (0, 0, False, "died", "failed", 0),
    ],
)
def test_how_a_trial_ended(
    reported: int,
    recorded: int,
    diverged: bool,
    error: str | None,
    status: RunStatus,
    last_epoch: int,
) -> None:
    state = in_state("running")
    event = TrialEnded("a", reported, recorded, diverged, error)
    assert state.handle(event) == [CloseTrial("a", status, last_epoch, error or "")]


# -- delivery -----------------------------------------------------------------------------------
def test_epochs_that_follow_fast_are_delivered_together() -> None:
    state = in_state("running")
    at = [0.0, 0.1, DELIVER_SECONDS, DELIVER_SECONDS + 0.1, DELIVER_SECONDS + 0.2]
    events = [TrialReported("a", n, 1.0, False, time) for n, time in enumerate(at, 1)]
    actions = [state.handle(event) for event in events]
    assert actions == [[DeliverTrial("a", 1)], [], [], [DeliverTrial("a", 4)], []]
    assert state.running["a"].epoch == 5


def test_trials_are_delivered_independently() -> None:
    state = in_state("running")
    state.handle(TrialStarted("b", CONFIG, 0))
    assert state.handle(REPORTED) and state.handle(replace(REPORTED, trial_id="b"))
    assert state.handle(replace(REPORTED, epoch=4)) == []


def test_a_restarted_trial_is_delivered_at_once() -> None:
    state = in_state("running")
    assert state.handle(REPORTED) == [DeliverTrial("a", 3)]
    state.handle(RESTARTED)
    assert state.running["a"].epoch == 4
    assert state.handle(replace(REPORTED, epoch=5)) == [DeliverTrial("a", 5)]


# -- the best value -----------------------------------------------------------------------------
Report = tuple[str, float, bool]


@pytest.mark.parametrize(
    ("mode", "reports", "best"),
    [
        ("min", [("a", 3.0, False), ("b", 2.0, False), ("a", 2.5, False)], ("b", 2.0)),
        ("max", [("a", 3.0, False), ("b", 2.0, False), ("a", 2.5, False)], ("a", 3.0)),
        ("min", [("a", 1.0, False), ("b", 1.0, False)], ("a", 1.0)),  # of equal ones the first
        ("max", [("a", 1.0, False), ("b", 1.0, False)], ("a", 1.0)),
        ("min", [("a", -1e30, True), ("b", 4.0, False)], ("b", 4.0)),
        ("max", [("a", 1e30, True)], None),
        ("min", [("late", 0.0, False), ("a", 4.0, False)], ("a", 4.0)),
    ],
)
def test_the_best_value(mode: Mode, reports: list[Report], best: tuple[str, float] | None) -> None:
    state = make_state(mode)
    for name in ("a", "b"):
        state.handle(TrialStarted(name, CONFIG, 0))
    for epoch, (name, value, diverged) in enumerate(reports, 1):
        state.handle(TrialReported(name, epoch, value, diverged, 0.0))
    assert state.best == best


def test_a_report_that_arrives_after_its_trial_ended_changes_nothing() -> None:
    state = in_state("running")
    state.handle(replace(REPORTED, value=5.0))
    state.handle(STOPPED)
    assert state.handle(replace(REPORTED, value=1.0, epoch=7)) == []
    assert state.best == ("a", 5.0) and state_of(state) == "stopped_early"


# -- resumed searches -----------------------------------------------------------------------------
def test_a_resumed_search_goes_on_from_what_is_recorded() -> None:
    state = make_state()
    ended: dict[str, RunStatus] = {"a": "interrupted", "b": "completed", "c": "superseded"}
    state.restore(ended, ("b", 2.0))
    assert state.num_ended == 1  # interrupted trials go on, superseded ones were tried again
    assert state.handle(RESTARTED) == [OPEN]
    state.handle(TrialReported("a", 5, 3.0, False, 0.0))
    assert state.best == ("b", 2.0)
    state.handle(TrialReported("a", 6, 1.0, False, 0.0))
    assert state.best == ("a", 1.0)
    state.handle(COMPLETED)
    assert state.num_ended == 2 and not state.running
    known = TuneEnded(known=["a", "b"], recorded={"a": 9, "b": 9, "c": 2})
    assert state.handle(known) == [replace(SUPERSEDED, trial_id="c", last_epoch=2)]


def test_a_search_that_is_cut_off_interrupts_every_open_trial() -> None:
    state = make_state()
    for name in ("a", "b"):
        state.handle(TrialStarted(name, CONFIG, 0))
    actions = state.handle(Closed({"a": 2, "b": 0, "c": 5}))
    assert actions == [
        CloseTrial(name, "interrupted", epoch) for name, epoch in [("a", 2), ("b", 0), ("c", 5)]
    ]
    assert not state.running and state.count("interrupted") == 3 and state.num_ended == 0


@pytest.mark.parametrize("status", ENDED)
def test_counts(status: RunStatus) -> None:
    state = make_state()
    count: Callable[[RunStatus], int] = state.count
    state.restore({"a": status, "b": status, "c": "completed"}, None)
    assert count(status) == (3 if status == "completed" else 2)
