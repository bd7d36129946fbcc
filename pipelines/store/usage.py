"""The time that a search has used, over all resumptions.

<search>/usage.json    `Usage`: written every few seconds by the process of the search
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass

from gen_models.core.errors import DamagedError
from pipelines.store.journal import as_json, parsed
from pipelines.store.layout import SearchFolder

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Usage:
    """What a search has used."""

    seconds: float = 0.0
    """Wall time in which at least one of its trials ran."""
    device_seconds: float = 0.0
    """The same, times the devices that its trials held: GPUs, or CPU cores."""
    devices: int = 0
    """Devices that its trials held when this was written."""
    flat_trials: int = 0
    """Trials that have ended since the best value has improved by more than its spread."""
    ended_by: str = ""
    """What has ended it before all its trials had ended; "" if nothing has."""

    @property
    def hours(self) -> float:
        return self.seconds / 3600.0

    @property
    def device_hours(self) -> float:
        return self.device_seconds / 3600.0


def read_usage(folder: SearchFolder) -> Usage:
    """Return what a search has used; nothing if that is not known."""
    try:
        return parsed(Usage, folder.files, folder.usage) or Usage()
    except DamagedError as error:
        _log.warning("%s: the time that the search has used is counted anew", error)
        return Usage()


def write_usage(folder: SearchFolder, usage: Usage) -> None:
    """Record what a search has used."""
    folder.files.write(folder.usage, as_json(asdict(usage)))
