"""Notices, posted to a real server on the loopback that fails, is slow or is down."""

import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.hooks import PATH, hook

from pipelines.report import notices
from pipelines.report.notices import Notice, Notices, notices_of
from pipelines.store.secrets import hide_notice_url


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_FIRST_WAIT", 0.02)
    monkeypatch.setattr(notices, "_LONGEST_WAIT", 0.1)
    monkeypatch.delenv("GENPIPE_NOTIFY_URL", raising=False)


def notice(event: Any = "ended", value: float | None = 1.5) -> Notice:
    return Notice(
        event=event,
        text=f"s: {event}",
        search="s",
        family="vae",
        metric="val/x",
        value=value,
        trials=3,
        url="",
        resume="genpipe search vae --resume s",
    )


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_notice_is_one_json_object_with_slack_s_text() -> None:
    with hook() as server, notices_of(hide_notice_url(server.url)) as sender:
        assert sender
        sender.send(notice())
        wait_for(lambda: bool(server.received))
    assert server.received == [
        {
            "event": "ended",
            "text": "s: ended",
            "search": "s",
            "family": "vae",
            "metric": "val/x",
            "value": 1.5,
            "trials": 3,
            "url": "",
            "resume": "genpipe search vae --resume s",
        }
    ]


def test_the_environment_names_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    with hook() as server:
        monkeypatch.setenv("GENPIPE_NOTIFY_URL", server.url)
        with notices_of("") as sender:
            assert sender
            sender.send(notice("failed"))
    assert server.events() == ["failed"]


def test_without_a_url_there_are_no_notices() -> None:
    with notices_of("") as sender:
        assert sender is None


def test_a_server_that_fails_first_is_asked_again() -> None:
    with hook(500, 429, 503) as server:
        sender = Notices(server.url)
        sender.send(notice())
        wait_for(lambda: bool(server.received))
        sender.close()
    assert server.events() == ["ended"] and len(server.times) == 4


@pytest.mark.parametrize("status", [400, 404, 302])
def test_a_notice_that_is_refused_is_not_posted_again(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with hook(status) as server, caplog.at_level(logging.WARNING):
        sender = Notices(server.url)
        sender.send(notice("failed"))
        sender.send(notice("ended"))
        sender.close()
    assert server.events() == ["ended"] and len(server.times) == 2
    assert "the notice 'failed' was not posted: HTTP Error" in caplog.text
    assert PATH not in caplog.text and "127.0.0.1" not in caplog.text


def test_new_best_values_are_posted_seldom_and_the_newest_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notices, "BEST_SECONDS", 0.5)
    with hook() as server:
        sender = Notices(server.url)
        sender.send(notice("new best", 9.0))
        wait_for(lambda: len(server.received) == 1)
        for value in (8.0, 7.0, 6.0):
            sender.send(notice("new best", value))
        wait_for(lambda: len(server.received) == 2)
        sender.send(notice("new best", 5.0))
        sender.send(notice("ended", 5.0))
        sender.close()
    assert [each["value"] for each in server.received] == [9.0, 6.0, 5.0]
    assert server.events() == ["new best", "new best", "ended"]
    assert server.times[1] - server.times[0] > 0.4


def test_a_newer_notice_is_not_held_up_by_one_that_fails() -> None:
    with hook(*[503] * 3) as server:
        sender = Notices(server.url)
        sender.send(notice("new best"))
        wait_for(lambda: bool(server.times))
        sender.send(notice("ended"))
        sender.close()
    assert server.events()[-1] == "ended"


def test_a_server_that_is_down_holds_the_end_for_some_seconds_at_most(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notices, "END_SECONDS", 1.0)
    with hook() as server:
        url = server.url
    start = time.monotonic()
    sender = Notices(url)
    sender.send(notice())
    with caplog.at_level(logging.WARNING):
        sender.close()
    assert time.monotonic() - start < 30.0
    assert "was not posted" in caplog.text and PATH not in caplog.text


def test_a_slow_server_holds_the_end_for_some_seconds_at_most(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notices, "END_SECONDS", 0.3)
    with hook(seconds=3.0) as server, caplog.at_level(logging.WARNING):
        sender = Notices(server.url)
        sender.send(notice())
        sender.close()
        assert not server.received
    assert "its server has not answered in time" in caplog.text
