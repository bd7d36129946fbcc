"""Notices of a search: JSON objects that are posted to a URL of the user's, as a Slack webhook.

A thread posts them, with retries, so that neither training nor the end of a command waits for a
server. The URL is a secret (`pipelines.store.secrets`): no message names it.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPException
from typing import Literal

from pipelines.store.secrets import notice_url, redact, redacted

BEST_SECONDS = 60.0
"""Notices of a new best value are as far apart, at least; of several the newest is posted."""
END_SECONDS = 8.0
"""How long the end of a command waits for its last notice."""
_REPLY_SECONDS = 5.0
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_ATTEMPTS = 8
_RETRIED = (408, 425, 429)
"""HTTP statuses below 500 after which another attempt may succeed."""

EventName = Literal["new best", "ended", "failed", "interrupted"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Notice:
    """What is posted."""

    event: EventName
    text: str
    """One line for people, which Slack shows."""
    search: str
    family: str
    metric: str
    value: float | None
    """The best value so far."""
    trials: int
    """Trials that have ended."""
    url: str
    """MLflow's page of the search; "" without a server."""
    resume: str
    """The command that goes on with the search."""


class Notices:
    """Posts notices to a URL, in a thread of its own."""

    def __init__(self, url: str) -> None:
        self._request = urllib.request.Request(
            url, headers={"Content-Type": "application/json", "User-Agent": "genpipe"}
        )
        self._opener = urllib.request.build_opener(_NoRedirect)
        self._changed = threading.Condition()
        self._queue: deque[Notice] = deque()
        self._best: Notice | None = None
        self._best_posted = float("-inf")
        self._closed_at: float | None = None
        self._thread = threading.Thread(target=self._work, name="notices", daemon=True)
        self._thread.start()

    def send(self, notice: Notice) -> None:
        """Post a notice soon; one of a new best value seldom, the newest."""
        with self._changed:
            if notice.event == "new best":
                self._best = notice
            else:
                self._queue.append(notice)
            self._changed.notify()

    def close(self) -> None:
        """Wait for some seconds until what is left has been posted. A new best value is left out:
        the notice of the end has it."""
        with self._changed:
            self._best, self._closed_at = None, time.monotonic()
            self._changed.notify()
        self._thread.join(END_SECONDS)
        if self._thread.is_alive():
            _log.warning("a notice was not posted: its server has not answered in time")

    # -- the thread ---------------------------------------------------------------------------
    def _work(self) -> None:
        while notice := self._next():
            try:
                self._post(notice)
            except Exception as error:  # a notice is not worth a search
                _log.warning("the notice %r was not posted: %s", notice.event, redact(str(error)))

    def _next(self) -> Notice | None:
        """Return the next notice when it is due; None when there will be no other."""
        with self._changed:
            while True:
                if self._queue:
                    return self._queue.popleft()
                if self._closed_at is not None:
                    return None
                wait = self._best_posted + BEST_SECONDS - time.monotonic()
                if self._best and wait <= 0:
                    notice, self._best = self._best, None
                    self._best_posted = time.monotonic()
                    return notice
                self._changed.wait(wait if self._best else None)

    def _post(self, notice: Notice) -> None:
        """Post a notice, again if that fails. Raises if it was refused, or failed too often."""
        content = json.dumps(redacted(asdict(notice))).encode()
        wait = _FIRST_WAIT
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._opener.open(self._request, content, timeout=_REPLY_SECONDS):
                    return
            except urllib.error.HTTPError as error:
                if error.code < 500 and error.code not in _RETRIED:
                    raise
                last: Exception = error
            except (OSError, HTTPException) as error:
                last = error
            if attempt == _ATTEMPTS or self._has_other(notice, wait):
                raise last
            wait = min(2 * wait, _LONGEST_WAIT)

    def _has_other(self, notice: Notice, wait: float) -> bool:
        """Wait before another attempt, less if the command ends meanwhile. Return whether there
        is no point in it: there is a newer notice, or no time."""
        with self._changed:
            deadline = time.monotonic() + wait
            while (left := deadline - time.monotonic()) > 0:
                if notice.event == "new best" and (self._queue or self._closed_at is not None):
                    return True
                if self._closed_at is not None:
                    left = min(left, _FIRST_WAIT)
                    self._changed.wait(left)
                    break
                self._changed.wait(left)
            closed = self._closed_at
            return closed is not None and time.monotonic() > closed + END_SECONDS


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would post a secret to another host."""

    def redirect_request(self, *args: object, **kwargs: object) -> None:
        return None


@contextmanager
def notices_of(mark: str) -> Iterator[Notices | None]:
    """Give the notices of a command for the block; None if there is no URL for them. `mark`: what
    stands for its URL (`pipelines.store.secrets.hide_notice_url`)."""
    url = notice_url(mark)
    if not url:
        yield None
        return
    notices = Notices(url)
    try:
        yield notices
    finally:
        notices.close()
