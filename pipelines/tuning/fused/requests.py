"""What a fused trial sends to its worker. Light: trial processes import it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrialRequest:
    """A trial, and the epoch that it is at."""

    trial_id: str
    config: Mapping[str, Any]
    """The searched settings, in the config's shape."""
    epoch: int | None = None
    """The last epoch whose report the trial received; None after its start or restart."""
    alone: bool = False
    """Train it apart from others: it may be what a worker died of."""
