"""Requests to end a run or a search: `genpipe stop` writes one, the process that runs it reads it.

    <run folder>/stop.json    `StopRequest`

A command withdraws the request when it takes the folder's lease, so that one that came too late
for an earlier command does not end a later one.
"""

from __future__ import annotations

import platform
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from gen_models.core.errors import DamagedError
from pipelines.store.journal import as_json, parsed
from pipelines.store.layout import RunFolder


@dataclass(frozen=True)
class StopRequest:
    """Who has asked a run or a search to end."""

    host: str
    time: float
    """In seconds since 1970."""

    def describe(self) -> str:
        """Return the request as the reason of an end."""
        at = datetime.fromtimestamp(self.time, UTC)
        return f"stopped by genpipe stop on {self.host} at {at:%Y-%m-%d %H:%M:%S} UTC"


def ask_to_stop(folder: RunFolder) -> StopRequest:
    """Ask the process that works on a folder to end; return the request. One that was made before
    stays."""
    request = StopRequest(platform.node(), time.time())
    folder.files.create(folder.stop_request, as_json(asdict(request)))
    return find_request(folder) or request


def find_request(folder: RunFolder) -> StopRequest | None:
    """Return the request to end, or None. One whose file is damaged is a request too."""
    try:
        return parsed(StopRequest, folder.files, folder.stop_request)
    except DamagedError:
        return StopRequest("an unknown host", time.time())


def withdraw_request(folder: RunFolder) -> None:
    """Remove the request that an earlier command has not seen, or has obeyed."""
    folder.files.remove(folder.stop_request)
