"""A search while it runs: performs what the recorder decides, ranks the trials, selects the
champion.

The search is a parent run in MLflow and each trial a child, recorded by the process that runs the
search and by no other.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import replace

from pipelines.analysis.best_epoch import epoch_costs, summarise_run
from pipelines.analysis.champion import Selection, select_champion
from pipelines.analysis.pareto import pareto_front
from pipelines.analysis.ranking import TrialResult, as_csv, rank_trials
from pipelines.config.run import as_train
from pipelines.config.search import Search
from pipelines.config.serialization import dump_config, with_settings
from pipelines.report.console import terminal
from pipelines.store.checkpoints import damaged_epochs, prune_checkpoints
from pipelines.store.journal import (
    OUTCOME,
    EpochRecord,
    Outcome,
    RunStatus,
)
from pipelines.store.layout import RunFolder, SearchFolder
from pipelines.store.lease import require_held
from pipelines.store.scan import (
    JournalCache,
    RunRecord,
    count_endings,
    trial_endings,
    write_schedules,
)
from pipelines.tracking.base import Tracker, find_backend
from pipelines.tracking.queue import is_pending
from pipelines.training.preflight import RunContext
from pipelines.training.restoring import is_whole
from pipelines.training.run import DAMAGED, open_run, write_samples
from pipelines.training.run_info import run_info, search_info
from pipelines.tuning.progress import SearchProgress
from pipelines.tuning.recorder import (
    Action,
    Closed,
    CloseTrial,
    DeliverTrial,
    Event,
    OpenTrial,
    SearchState,
    TrialEnded,
    TuneEnded,
)

_log = logging.getLogger(__name__)


class SearchRun:
    """One search, or one seed study, in the process that runs it.

    `searched`: the settings that differ between its trials, flat names.
    """

    def __init__(
        self,
        context: RunContext[Search],
        folder: SearchFolder,
        tracker: Tracker,
        searched: list[str],
    ) -> None:
        self.context, self.folder, self.tracker = context, folder, tracker
        self.run = context.run
        self.searched = searched
        self.metric = self.run.metric
        self.state = SearchState(self.run.objective, self.run.epochs)
        self.progress = SearchProgress(self.state, self.run.trials, terminal())
        self._cache = JournalCache()
        self._damaged: set[tuple[str, int]] = set()
        """Trials and epochs whose checkpoint is known to be damaged."""
        self._start, self._end = time.monotonic(), 0.0

    @property
    def search_id(self) -> str:
        return self.folder.name

    @property
    def _public_uri(self) -> str:
        uri = self.context.uri
        return find_backend(uri).public_uri(uri)

    @property
    def has_started(self) -> bool:
        """Whether the search was ever recorded as started."""
        return self.folder.journal.has_started

    # -- the search ---------------------------------------------------------------------------
    def start(self, run: Search) -> None:
        """Record that the search starts or is resumed. `run`: its config with every choice
        made."""
        self.run = run
        require_held(self.folder)
        self.folder.files.write(self.folder.config, dump_config(run))
        info = search_info(
            run,
            self.context.dataset,
            search_id=self.search_id,
            experiment=self.context.experiment,
            searched=self.searched,
        )
        self.folder.journal.open(info)
        self.tracker.sync(self.folder.journal)
        ranking = self.ranking()
        for result in ranking:  # Tune does not start them again
            if is_pending(result.record.folder.journal, self._public_uri):
                self.tracker.sync(result.record.folder.journal)
        first = ranking[0] if ranking else None
        best = (first.trial_id, first.best.value) if first and first.best else None
        self.state.restore({r.trial_id: r.outcome.ending for r in ranking}, best)
        self.progress.update()

    def tune_ended(self, trial_ids: Collection[str]) -> None:
        """Record that Tune has run what it could of the trials that it knows."""
        self.progress.close()
        self._end = time.monotonic()
        records = self._cache.read_trials(self.folder)
        for record in records:
            if OUTCOME in record.damage and record.folder.name in trial_ids:
                self._end_again(record)
        recorded = {record.folder.name: record.last_epoch for record in records}
        self.handle(TuneEnded(trial_ids, recorded))

    def _end_again(self, record: RunRecord) -> None:
        """Record anew how a trial ended that Tune does not take up again: of its outcome nothing
        is left but damage. Then it is no longer set aside."""
        last = record.epochs.get(record.last_epoch)
        ended = TrialEnded(
            record.folder.name,
            reported_epoch=record.last_epoch,
            recorded_epoch=record.last_epoch,
            diverged=bool(last and last.metrics.get("diverged")),
        )
        self.handle(ended)

    def close_open_trials(self, *, ended: bool = True) -> None:
        """Record as interrupted what is still open, when the processes that write have gone.

        `ended`: False if an error ended the search, which is then interrupted itself, even if
        every trial has ended.
        """
        self.progress.close()
        if not self.has_started:
            return
        records = self._cache.read_trials(self.folder)
        still_open = {r.folder.name: r.last_epoch for r in records if not r.has_ended}
        self.handle(Closed(still_open))
        if self.status in ("interrupted", "failed") or not ended:
            self._close_search({}, {}, self.status if ended else "interrupted")

    @property
    def status(self) -> RunStatus:
        """How the search stands: completed once every trial has ended, failed if all failed."""
        statuses = self._statuses()
        if len(statuses) < self.run.trials or "interrupted" in statuses:
            return "interrupted"
        return "failed" if set(statuses) == {"failed"} else "completed"

    @property
    def is_over(self) -> bool:
        """Whether nothing is left for Tune: a trial that failed is tried again when its search is
        resumed, one that ended in another way is not."""
        statuses = self._statuses()
        ended = {"completed", "stopped_early", "diverged"}
        return len(statuses) >= self.run.trials and set(statuses) <= ended

    def _statuses(self) -> list[str]:
        """Return how each trial ended (`trial_endings`)."""
        return trial_endings(self._cache.read_trials(self.folder))

    def ranking(self) -> list[TrialResult]:
        """Return the trials that have ended, the best first."""
        records = self._cache.read_trials(self.folder)
        return rank_trials(records, self.run.objective, self.searched)

    def selection(self) -> Selection:
        """Return the trial that the search selects."""
        return select_champion(self.ranking(), self.run.objective, self.run.seed_study)

    def pareto(self) -> list[TrialResult]:
        """Return the trials on the Pareto front; [] with a single objective."""
        return pareto_front(self.ranking(), self.run.objectives) if self.run.further else []

    def add_seed_statistics(self, trial_id: str, summary: Mapping[str, float]) -> None:
        """Record with a trial what a seed study made of its config."""
        folder = self.folder.trial(trial_id)
        outcome = folder.journal.outcome()
        assert outcome
        self._close_run(folder, replace(outcome, summary={**outcome.summary, **summary}))

    def finish(self, *, register: bool) -> None:
        """Close a search that is complete: write its table and its page, and log the champion's
        checkpoint as a model, registered if asked for, with a claim to the alias `champion`."""
        if self.status != "completed":
            return
        self._set_damaged_aside()
        pareto = self._mark_pareto_front()
        selection = self.selection()  # after it, because the winner may be on the front
        table = as_csv(self.ranking(), self.run.objectives, pareto)
        self.folder.files.write(self.folder.table, table)
        artifacts = {"search": self.folder.table.name}
        if selection.winner:
            artifacts |= self._log_champion(selection, selection.winner, register)
        self._close_search(selection.summary, artifacts | self._write_report(), "completed")

    def _set_damaged_aside(self) -> None:
        """Close the winner anew if its best checkpoint is damaged, until the winner's is whole."""
        while (winner := self.selection().winner) and winner.best:
            folder, outcome = winner.record.folder, winner.outcome
            if is_whole(folder.path, winner.best.epoch, folder.files):
                return
            message = outcome.tags.get("message", "")
            ended = CloseTrial(winner.trial_id, outcome.ending, outcome.last_epoch, message)
            self._close_trial(folder, ended)

    def _log_champion(
        self, selection: Selection, winner: TrialResult, register: bool
    ) -> dict[str, str]:
        """Have the winner's checkpoint logged as a model; return the search's artifacts of it."""
        if winner.best is None:
            return {}
        write_samples(self.folder, winner.best.checkpoint, self.folder.champion_samples)
        samples, trial = self.folder.champion_samples, winner.record.folder.path
        artifacts = {"samples": os.path.relpath(samples, trial)}
        claim = selection.claim.as_tags() if selection.claim and register else {}
        outcome = replace(
            winner.outcome,
            checkpoint=winner.best.checkpoint.name,
            register=self.context.experiment if register else "",
            champion=claim,
            artifacts={**winner.outcome.artifacts, **artifacts},
        )
        self._close_run(winner.record.folder, outcome)
        return {"samples": samples.name}

    def _mark_pareto_front(self) -> list[str]:
        """Tag the trials of the Pareto front in MLflow; return their ids."""
        front = self.pareto()
        for result in front:
            tags = {**result.outcome.tags, "pareto_front": "true"}
            self._close_run(result.record.folder, replace(result.outcome, tags=tags))
        return [result.trial_id for result in front]

    def _write_report(self) -> dict[str, str]:
        """Write the search's page. A page that fails leaves the search complete."""
        from pipelines.report.html import write_report  # light: trials wait for no matplotlib

        try:
            write_report(self.folder, self.ranking(), self.run.objectives)
        except Exception:
            _log.exception("the report of %s could not be written", self.search_id)
            return {}
        return {"report": self.folder.report.name}

    def _close_search(
        self, summary: Mapping[str, float], artifacts: dict[str, str], status: RunStatus
    ) -> None:
        counts = count_endings(self._statuses())
        seconds = {"wall_seconds": (self._end or time.monotonic()) - self._start}
        whole = {**summary, **counts, **seconds, **self.context.extractor.summary}
        outcome = Outcome(status, last_epoch=0, summary=whole, artifacts=artifacts)
        self._close_run(self.folder, outcome)

    # -- events: pipelines.tuning.callbacks.EventHandler -----------------------------------------
    def handle(self, event: Event) -> None:
        """Record an event: perform what the recorder decides. Raises `LeaseLostError`."""
        require_held(self.folder)
        for action in self.state.handle(event):
            self._perform(action)
        self.progress.update()

    def last_record(self, trial_id: str) -> EpochRecord | None:
        """Return a trial's last recorded epoch."""
        return self.folder.trial(trial_id).journal.last()

    def _perform(self, action: Action) -> None:
        folder = self.folder.trial(action.trial_id)
        match action:
            case OpenTrial():
                self._open_trial(folder, action)
            case DeliverTrial():
                self.tracker.sync(folder.journal, upto=action.upto)
            case CloseTrial():
                self._close_trial(folder, action)

    def _open_trial(self, folder: RunFolder, action: OpenTrial) -> None:
        run = as_train(with_settings(self.run, action.config))
        info = run_info(
            run,
            self.context.dataset,
            kind="trial",
            name=action.trial_id,
            experiment=self.context.experiment,
            search_id=self.search_id,
            trial_id=action.trial_id,
            parent=os.path.relpath(self.folder.path, folder.path),
        )
        open_run(folder, run, info)
        self._cache.invalidate(folder)
        self.tracker.sync(folder.journal)

    def _close_trial(self, folder: RunFolder, action: CloseTrial) -> None:
        """Record the end of a trial. Its best epoch is found before checkpoints are pruned, by the
        same rule, so that it keeps its checkpoint."""
        self._cache.invalidate(folder)
        record, objective = self._cache.read(folder), self.run.objective
        outcome = summarise_run(
            record, objective, action.status, action.last_epoch, action.message
        )
        if action.status in ("completed", "stopped_early", "diverged"):  # not taken up again
            costs = epoch_costs(record, objective)
            keep, last = self.run.keep_checkpoints, action.last_epoch
            prune_checkpoints(folder.path, costs, keep, last_epoch=last, files=folder.files)
        outcome = replace(outcome, artifacts=write_schedules(record))
        self._close_run(folder, outcome)
        for epoch in damaged_epochs(folder.path, folder.files):
            if (folder.name, epoch) not in self._damaged:
                self._damaged.add((folder.name, epoch))
                _log.warning(DAMAGED, folder.name, epoch, epoch)
        self._show_end(folder, action, outcome)

    def _close_run(self, folder: RunFolder, outcome: Outcome) -> None:
        require_held(self.folder)
        folder.journal.close(outcome)
        self._cache.invalidate(folder)
        self.tracker.sync(folder.journal)

    def _show_end(self, folder: RunFolder, action: CloseTrial, outcome: Outcome) -> None:
        if action.status == "superseded":
            return
        value = outcome.summary.get(f"best/{self.metric}")
        text = action.message or ("no metric" if value is None else f"{self.metric} {value:.5g}")
        info = self._cache.read(folder).info
        config = {name: info.params[name] for name in self.searched} if info else {}
        text = f"epoch {action.last_epoch}, {text}"
        self.progress.trial_ended(action.trial_id, action.status, text, config)
