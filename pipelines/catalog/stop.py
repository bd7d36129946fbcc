"""Ends a run or a search that another process runs."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path

from gen_models.core.errors import DamagedError, InputError, did_you_mean
from pipelines.catalog.abandoned import recorded_resume_command
from pipelines.report.results import StopResult
from pipelines.store.layout import RunFolder, Store
from pipelines.store.lease import seems_held
from pipelines.store.stop_request import ask_to_stop

_POLL_SECONDS = 0.5
_NAMED = 20
"""Searches and runs that an error names."""
_log = logging.getLogger(__name__)


def stop(search: str, *, store: str | Path | None = None, wait: bool = False) -> StopResult:
    """End a search, a seed study or a training run after the epochs that run, from any process
    that sees the store. What was found until then counts. With `wait`, return when it has ended.

    `search`: the id of a search or a seed study, or the name of a run. Raises `InputError` if
    there is none of this name, or if no process works on it.

    >>> import genpipe
    >>> genpipe.stop("vae-20260102-030405-6789", store="runs", wait=True).ended_by
    """
    place = Store.at(store)
    folder = find_folder(place, search)
    resume = recorded_resume_command(place, folder)
    if not seems_held(folder):
        outcome, _ = recorded_end(folder)
        ended = f"no process works on it, it is {outcome or 'interrupted'}"
        goes_on = f"; `{resume}` goes on with it, if anything is left" if resume else ""
        raise InputError(f"search = {search!r}: expected one that is running: {ended}{goes_on}")
    request = ask_to_stop(folder)
    if wait:
        _log.info("%s: waiting until the epochs that run have ended", search)
        while seems_held(folder):
            time.sleep(_POLL_SECONDS)
    outcome, ended_by = recorded_end(folder) if wait else ("", "")
    return StopResult(
        name=folder.name,
        asked=request.describe(),
        outcome=outcome or ("interrupted" if wait else ""),
        ended_by=ended_by,
        resume=resume,
    )


def find_folder(store: Store, name: str) -> RunFolder:
    """Return the folder of a search, or of a run of `genpipe train`. Raises `InputError` if there
    is none of this name."""
    for folder in (store.search(name), store.run(name)):
        if folder.journal.has_started or folder.files.exists(folder.leases):
            return folder
    known = [path.parent.name for path in leased_paths(store)]
    names = ", ".join(sorted(known)[-_NAMED:]) or "there is none"
    near = did_you_mean(name, known)
    raise InputError(
        f"search = {name!r}{near}: expected a search or a run of {store.root}: {names}"
    )


def leased_paths(store: Store) -> list[Path]:
    """Return the folders of the leases of all searches and runs of a store."""
    patterns = ("searches/*/lease", "runs/*/lease")
    return [path for pattern in patterns for path in store.files.list(store.root, pattern)]


def recorded_end(folder: RunFolder) -> tuple[str, str]:
    """Return how a run or a search has ended, and what has ended it before its time; "" for what
    is not recorded."""
    with suppress(DamagedError):
        if outcome := folder.journal.outcome():
            stopped = outcome.ending == "stopped_early"
            message = outcome.tags.get("message", "") if stopped else ""
            return outcome.ending, outcome.tags.get("ended_by", message)
    return "", ""
