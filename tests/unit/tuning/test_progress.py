"""The progress of a search: the line, and when it is shown."""

import io
import logging
from collections.abc import Iterator

import pytest
from rich.console import Console

from pipelines.config.objectives import Objective
from pipelines.store.journal import RunStatus
from pipelines.tuning.progress import BudgetsLeft, SearchProgress, duration, progress_line
from pipelines.tuning.recorder import SearchState, TrialEnded, TrialReported, TrialStarted


def make_state(**ended: RunStatus) -> SearchState:
    state = SearchState(Objective("val/nll", "min"), 10)
    state.restore(ended, None)
    return state


def test_the_line_of_a_search_that_has_just_begun() -> None:
    assert progress_line(make_state(), 5, 0.0) == "0 s  starting the first trials"
    state = make_state()
    state.handle(TrialStarted("a", {}, 0))
    assert progress_line(state, 5, 3.0) == (
        "3 s  trials 0/5 ended, 0 stopped early, 1 running  best: none"
    )


def test_the_line_counts_trials_and_names_the_best() -> None:
    state = make_state(a="completed", b="stopped_early", c="interrupted", d="superseded")
    state.handle(TrialStarted("c", {}, 0))
    state.handle(TrialReported("c", 1, 12.345678, False, 0.0))
    line = "30 s  trials 2/8 ended, 1 stopped early, 1 running  best: val/nll 12.346 (trial c)"
    assert progress_line(state, 8, 30.0) == line
    assert progress_line(state, 8, 30.0, 2 / 30) == f"{line}  4.0 trials/min  about 2 min left"
    budget = BudgetsLeft("left: 0.01 of 0.5 h", 36.0)
    expected = f"{line}  4.0 trials/min  about 36 s left  left: 0.01 of 0.5 h"
    assert progress_line(state, 8, 30.0, 2 / 30, budget) == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89.0, "89 s"), (90.0, "2 min"), (5399.0, "90 min"), (5400.0, "1.5 h")],
)
def test_a_time_is_said_in_its_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_rate_is_of_the_trials_since_this_start(
    logger: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("pipelines.tuning.progress.time.monotonic", lambda: now)
    state = make_state(**{name: "completed" for name in "abcdefg"})  # type: ignore[arg-type]
    progress = SearchProgress(state, 10)
    now = 1020.0  # Ray has started
    progress.update()
    state.handle(TrialStarted("x", {}, 0))
    progress.update()
    now = 1050.0
    state.handle(TrialEnded("x", 3, 3, False))
    progress.update()
    assert "7/10 ended" in caplog.messages[0] and "/min" not in caplog.messages[0]
    assert caplog.messages[1].endswith("2.0 trials/min  about 60 s left")


@pytest.fixture
def logger(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, logger="pipelines.tuning.progress"):
        yield


def test_without_a_terminal_the_line_is_logged_seldom(
    logger: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("pipelines.tuning.progress.time.monotonic", lambda: now)
    progress = SearchProgress(make_state(), 5, Console(file=io.StringIO()))
    for seconds in (0.0, 1.0, 9.0, 11.0, 12.0, 25.0):
        now = 1000.0 + seconds
        progress.update()
    lines = [message.split()[0] for message in caplog.messages]
    assert lines == ["0", "11", "25"]


def test_a_trial_that_ended_is_logged_with_its_config(
    logger: None, caplog: pytest.LogCaptureFixture
) -> None:
    progress = SearchProgress(make_state(), 5)
    config = {"optim.lr": 0.0012345, "model.hidden": "(32,)"}
    progress.trial_ended("a1", "stopped_early", "epoch 3, val/nll 9.5", config)
    settings = "optim.lr=0.00123 model.hidden=(32,)"
    expected = f"trial a1 stopped early: epoch 3, val/nll 9.5  [{settings}]"
    assert caplog.messages[0] == expected


def test_a_terminal_has_one_line_that_is_replaced_and_removed(logger: None) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=150)
    progress = SearchProgress(make_state(a="completed"), 5, console)
    progress.update()
    progress.close()
    text = out.getvalue()
    assert "trials 1/5 ended" in text or "starting Ray" in text
    assert "\x1b[2K" in text  # the line was erased


def test_with_quiet_a_terminal_shows_no_line(caplog: pytest.LogCaptureFixture) -> None:
    out = io.StringIO()
    with caplog.at_level(logging.WARNING, logger="pipelines.tuning.progress"):
        progress = SearchProgress(make_state(), 5, Console(file=out, force_terminal=True))
        progress.update()
        progress.close()
    assert out.getvalue() == "" and not caplog.messages
