"""Runs that nobody works on any more, because their command was killed or its machine is gone.

Such a run has no outcome, and no living process holds its lease. Its journal is closed as
interrupted, as its command would have done, and is then delivered like that of any other run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from gen_models.core.config import parse_object
from gen_models.core.errors import DamagedError, InputError
from pipelines.analysis.best_epoch import summarise_run
from pipelines.config.command import resumed
from pipelines.config.objectives import Objective, parse_mode
from pipelines.report.results import RecordedRun
from pipelines.store.files import LeaseLostError
from pipelines.store.journal import Journal, Outcome, RunInfo
from pipelines.store.layout import RunFolder, Store
from pipelines.store.lease import holding, seems_held
from pipelines.store.scan import JournalCache, RunRecord, write_schedules

_AT_ONCE = 32
_MESSAGE = "its command ended without closing it"
_log = logging.getLogger(__name__)


def close_abandoned(store: Store) -> None:
    """Record as interrupted what has no outcome, and no command works on. All at once: a holder
    elsewhere is waited for."""
    open_journals: dict[RunFolder, list[Journal]] = {}
    for journal in store.open_journals():
        open_journals.setdefault(store.leased_folder(journal), []).append(journal)
    abandoned = {folder: js for folder, js in open_journals.items() if not seems_held(folder)}
    if abandoned:
        with ThreadPoolExecutor(min(len(abandoned), _AT_ONCE)) as pool:
            list(pool.map(_close, abandoned, abandoned.values()))


def _close(folder: RunFolder, journals: Iterable[Journal]) -> None:
    """Close the journals of a run, or of a search and its trials, unless a command works on it."""
    try:
        with holding(folder, "store"):
            trials_first = sorted(journals, key=lambda each: each.run_folder == folder.path)
            for journal in trials_first:
                _close_journal(journal)
    except DamagedError as error:
        _log.warning("%s is set aside: %s", folder.name, error)
    except (InputError, LeaseLostError):  # a command has just begun to work on it
        pass
    except OSError as error:
        _log.warning("%s is interrupted, which cannot be recorded: %s", folder.name, error)


def _close_journal(journal: Journal) -> None:
    record = JournalCache().read(RunFolder(journal.run_folder, journal.files))
    if record.has_ended or record.info is None:
        return
    if record.info.kind in ("search", "confirmation"):
        journal.close(Outcome("interrupted", record.last_epoch, tags={"message": _MESSAGE}))
    else:
        journal.close(_outcome_of_run(record, record.info))


def _outcome_of_run(record: RunRecord, info: RunInfo) -> Outcome:
    last, objective = record.last_epoch, _objective(info)
    if objective is None:
        return Outcome("interrupted", last, tags={"message": _MESSAGE})
    outcome = summarise_run(record, objective, "interrupted", last, _MESSAGE)
    return replace(outcome, artifacts=write_schedules(record))


def _objective(info: RunInfo) -> Objective | None:
    """Return what selects a run's best epoch; None if it is not known of a run of an old
    version."""
    metric, mode = info.tags.get("metric"), info.tags.get("mode")
    return Objective(metric, parse_mode(mode)) if metric and mode else None


# -- how to go on -----------------------------------------------------------------------------
def resume_commands(store: Store, runs: Iterable[RecordedRun]) -> dict[str, str]:
    """Return the commands that resume what was interrupted of `runs`, by the name of the run or
    the search: of those that lie in this store, and that no command works on."""
    folders = dict[RunFolder, None]()
    for run in runs:
        if run.outcome == "interrupted":
            with suppress(InputError):  # of another program, or damaged
                if folder := _folder(store, run):
                    folders[folder] = None
    found: dict[str, str] = {}
    for folder in folders:
        with suppress(OSError, ValueError):  # damaged
            if not seems_held(folder) and (command := recorded_resume_command(store, folder)):
                found[folder.name] = command
    return found


def _folder(store: Store, run: RecordedRun) -> RunFolder | None:
    """Return the folder of what is to be resumed; None if the run is not of this store."""
    if run.kind == "run":
        folder = store.run(run.name)
        return folder if run.run_id in folder.journal.run_ids() else None
    search = store.search(run.search_id)
    own = search.trial(run.trial_id) if run.kind == "trial" else search
    if run.run_id not in own.journal.run_ids():
        return None
    info = search.journal.info()
    if info and (of := info.tags.get("confirms_search")):
        whole = store.search(of)
        if search.path.name.startswith(f"{of}-{info.tags['confirms_name']}-"):
            return whole  # which makes this seed study
    return search


def recorded_resume_command(store: Store, folder: RunFolder) -> str:
    """Return the command that resumes what lies in a folder; "" if an old version has not recorded
    how it was started."""
    info = folder.journal.info()
    rerun = info.tags.get("rerun", "") if info else ""
    uri = None
    if folder.files.exists(folder.config):
        content = parse_object(folder.files.read(folder.config), str(folder.config))
        config = content.get("config")
        uri = config.get("tracking_uri") if isinstance(config, dict) else None
    return resumed(rerun, folder.name, store.root, uri) if rerun else ""
