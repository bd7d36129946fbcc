"""A search while it runs: performs what the recorder decides, ranks the trials, selects the
champion.

The search is a parent run in MLflow and each trial a child, recorded by the process that runs the
search and by no other.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.analysis.best_epoch import epoch_costs, summarise_run
from pipelines.analysis.budgets import TRIED, counted_values, seconds_of_budgets
from pipelines.analysis.champion import Selection, select_champion
from pipelines.analysis.importance import MIN_TRIALS
from pipelines.analysis.pareto import pareto_front
from pipelines.analysis.ranking import TrialResult, as_csv, rank_trials
from pipelines.cluster.process import import_compiler
from pipelines.config.command import resume_command
from pipelines.config.job_text import dump_job
from pipelines.config.run import as_train
from pipelines.config.search import Search
from pipelines.config.serialization import dump_config, with_settings
from pipelines.report.console import terminal
from pipelines.report.contents import SearchContents, make_contents
from pipelines.report.notices import EventName, Notice, Notices
from pipelines.report.run_pages import run_page
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
from pipelines.training.control import SearchControl
from pipelines.training.preflight import RunContext
from pipelines.training.restoring import is_whole
from pipelines.training.run import DAMAGED, open_run, write_samples
from pipelines.training.run_info import run_info, search_info
from pipelines.tuning.node_metrics import NodeMetrics
from pipelines.tuning.progress import BudgetsLeft, SearchProgress
from pipelines.tuning.recorder import (
    DELIVER_SECONDS,
    FOR_NOW,
    Action,
    Closed,
    CloseTrial,
    DeliverTrial,
    EndDue,
    Event,
    OpenTrial,
    SearchState,
    TrialEnded,
    TuneEnded,
)
from pipelines.tuning.search_curve import SearchCurve
from pipelines.tuning.strategy.knowledge import given_points

_log = logging.getLogger(__name__)
_DRAWN = 5
"""Of so many of the best trials, and of the Pareto front, samples are drawn at the end."""
_NOT_IN_NAMES = re.compile(r"[^\w .+=-]")
"""What a file's name leaves out of a trial's label."""
_BUDGETS = {
    "max_hours": "h",
    "max_device_hours": "device h",
    "stop_when_flat": "trials without a better value",
}
"""The settings that are budgets, and their units."""


class SearchRun:
    """One search, or one seed study, in the process that runs it.

    `searched`: the settings that differ between its trials, flat names. `within`: the search that
    makes this seed study; asking that one to stop ends this one. `notices`: told of a new best
    value.
    """

    def __init__(
        self,
        context: RunContext[Search],
        folder: SearchFolder,
        tracker: Tracker,
        searched: list[str],
        within: SearchFolder | None = None,
        notices: Notices | None = None,
    ) -> None:
        self.context, self.folder, self.tracker = context, folder, tracker
        self.run = context.run
        self.searched = searched
        self.metric = self.run.metric
        self.state = SearchState(self.run.objective, self.run.epochs)
        self.curve = SearchCurve(folder.journal, self.run.objective)
        self._curve_delivered = float("-inf")
        self.progress = SearchProgress(self.state, self.run.trials, terminal(), self._budgets_left)
        self._cache = JournalCache()
        self._damaged: set[tuple[str, int]] = set()
        """Trials and epochs whose checkpoint is known to be damaged."""
        asked_in = [folder, within] if within else [folder]
        records = self._cache.read_trials(folder)
        self.control = SearchControl(self.run, folder, asked_in, records)
        self.workers: int | None = None
        """Fused workers; None if trials are not fused."""
        self.node_metrics: NodeMetrics | None = None
        """What the nodes do; None while no trial runs."""
        self._notices = notices
        self._start, self._end = time.monotonic(), 0.0

    def _budgets_left(self) -> BudgetsLeft:
        """Return what is left of the search's budgets, for the line of its progress."""
        control, run = self.control, self.run
        left = control.budget_left()
        texts = [
            f"{value:.3g} of {getattr(run, name):g} {unit}"
            for name, unit in _BUDGETS.items()
            if (value := left.get(name)) is not None
        ]
        seconds = min(seconds_of_budgets(left, control.usage.devices).values(), default=None)
        return BudgetsLeft(f"left: {', '.join(texts)}" if texts else "", seconds)

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
        self.folder.files.write(self.folder.job, dump_job(run, self.folder.name))
        info = search_info(
            run,
            self.context.dataset,
            search_id=self.search_id,
            experiment=self.context.experiment,
            searched=self.searched,
        )
        self.folder.journal.label(run.labels)
        self.folder.journal.open(info)
        self.curve.remove_damaged()
        self.tracker.sync(self.folder.journal)
        ranking = self.ranking()
        ended = [result.record.folder.journal for result in ranking]  # Tune starts none again
        pending = [journal for journal in ended if is_pending(journal, self._public_uri)]
        if any((outcome := each.outcome()) and outcome.checkpoint for each in pending):
            import_compiler()  # a model is exported beside Tune
        for journal in pending:
            self.tracker.sync(journal)
        first = ranking[0] if ranking else None
        best = (first.trial_id, first.best.value) if first and first.best else None
        self._restore(ranking, best)
        if not self._is_done and (reason := self.control.exhausted()):
            self.handle(EndDue(reason, ()))
        self.progress.update()

    def _restore(self, ranking: Sequence[TrialResult], best: tuple[str, float] | None) -> None:
        """Take over how trials have ended, and record what the search's journal lacks of it."""

        def recorded_first(result: TrialResult) -> int:
            is_new = self._lacks(result.trial_id, result.outcome)
            return result.record.ended_ms() if is_new else 0

        for result in sorted(ranking, key=recorded_first):
            outcome = result.outcome
            trial_id, epoch = result.trial_id, outcome.last_epoch
            self.state.restore({trial_id: outcome.ending}, best, {trial_id: epoch})
            self._record_end(result.trial_id, outcome)

    def tune_ended(self, trial_ids: Collection[str]) -> None:
        """Record that Tune has run what it could of the trials that it knows."""
        self.progress.close()
        self._end = time.monotonic()
        self.control.end(self.ended_by)
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
        self.control.end(self.ended_by)
        records = self._cache.read_trials(self.folder)
        still_open = {r.folder.name: r.last_epoch for r in records if not r.has_ended}
        self.handle(Closed(still_open))
        if self.status in ("interrupted", "failed") or not ended:
            self._close_search({}, {}, self.status if ended else "interrupted")

    @property
    def ended_by(self) -> str:
        """Why the search has ended, or is to end, before all its trials have; "" if it has not."""
        return self.state.ending

    @property
    def status(self) -> RunStatus:
        """How the search stands: completed once every trial has ended, or if it was ended before
        with a result; failed if all trials failed."""
        statuses = self._statuses()
        if statuses and set(statuses) == {"failed"} and len(statuses) >= self.run.trials:
            return "failed"
        if len(statuses) >= self.run.trials and "interrupted" not in statuses:
            return "completed"
        has_result = self.ended_by and any(each.best for each in self.ranking())
        return "completed" if has_result else "interrupted"

    @property
    def is_over(self) -> bool:
        """Whether nothing is left for Tune: no trial, or a budget is used up."""
        return self._is_done or bool(self.control.exhausted())

    @property
    def _is_done(self) -> bool:
        """Whether no trial is left: one that failed is tried again when its search is resumed, one
        that ended in another way is not."""
        statuses = self._statuses()
        ended = {"completed", "stopped_early", "diverged"}
        return len(statuses) >= self.run.trials and set(statuses) <= ended

    def _statuses(self) -> list[str]:
        """Return how each trial ended (`trial_endings`)."""
        return trial_endings(self._cache.read_trials(self.folder), self.run.epochs)

    def ranking(self) -> list[TrialResult]:
        """Return the trials that have ended, the best first."""
        records = self._cache.read_trials(self.folder)
        return rank_trials(records, self.run.objective, self.searched)

    def contents(self) -> SearchContents:
        """Return what its page shows."""
        records = self._cache.read_trials(self.folder)
        return make_contents(self.folder, self.run, records, "ended")

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
        contents = self.contents()
        artifacts = {"search": self.folder.table.name, **self._draw_best(selection.winner)}
        if selection.winner:
            selection = self.selection()  # with its samples
            assert selection.winner
            artifacts |= self._log_champion(selection, selection.winner, register)
        artifacts |= self._write_report(contents)
        self._close_search(selection.summary, artifacts, "completed")

    def _set_damaged_aside(self) -> None:
        """Close the winner anew if its best checkpoint is damaged, until the winner's is whole."""
        while (winner := self.selection().winner) and winner.best:
            folder, outcome = winner.record.folder, winner.outcome
            if is_whole(folder.path, winner.best.epoch, folder.files):
                return
            message = outcome.tags.get("message", "")
            ended = CloseTrial(winner.trial_id, outcome.ending, outcome.last_epoch, message)
            self._close_trial(folder, ended)

    def _draw_best(self, winner: TrialResult | None) -> dict[str, str]:
        """Draw samples of the best trials and of the winner, each at its best epoch; return the
        search's artifacts of them."""
        folder = self.folder.best_samples
        self.folder.files.remove(folder)
        ranked, front = list(enumerate(self.ranking(), 1)), self.pareto()[:_DRAWN]
        shown = {winner.trial_id if winner else "", *(result.trial_id for result in front)}
        for rank, result in ranked:
            if result.best is None or (rank > _DRAWN and result.trial_id not in shown):
                continue
            trial, picture = result.record.folder, self._draw(result)
            if picture is None:
                continue
            artifacts = {**result.outcome.artifacts, "samples": picture.name}
            self._close_run(trial, replace(result.outcome, artifacts=artifacts))
            info, best = result.record.info, result.best
            label = _NOT_IN_NAMES.sub("_", (info.label if info else "") or result.trial_id)
            name = f"{rank:03} {label}, epoch {best.epoch}, {best.value:.5g}.png"
            self.folder.files.write(folder / name, trial.files.read(picture))
        return {"best": folder.name} if folder.is_dir() else {}

    def _draw(self, result: TrialResult) -> Path | None:
        """Draw samples of a trial's best checkpoint, unless that was done; return the picture, or
        None if the checkpoint is damaged."""
        folder, best = result.record.folder, result.best
        if best is None or not is_whole(folder.path, best.epoch, folder.files):
            return None
        picture = folder.samples_at(best.epoch)
        if not folder.files.exists(picture):
            for earlier in folder.files.list(folder.path, "samples_*.png"):
                folder.files.remove(earlier)
            write_samples(folder, best.checkpoint, picture)
        return picture

    def _log_champion(
        self, selection: Selection, winner: TrialResult, register: bool
    ) -> dict[str, str]:
        """Have the winner's checkpoint logged as a model; return the search's artifacts of it."""
        if winner.best is None:
            return {}
        samples, trial = self.folder.champion_samples, winner.record.folder
        drawn = trial.files.read(trial.samples_at(winner.best.epoch))
        self.folder.files.write(samples, drawn)
        claim = selection.claim.as_tags() if selection.claim and register else {}
        outcome = replace(
            winner.outcome,
            checkpoint=winner.best.checkpoint.name,
            register=self.context.registered_model if register else "",
            champion=claim,
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

    def _write_report(self, contents: SearchContents) -> dict[str, str]:
        """Write the search's page, with the samples that it wants. A page that fails leaves the
        search complete."""
        from pipelines.report.gallery import shown_trials  # light: so does this
        from pipelines.report.html import write_report  # light: imports jinja2

        try:
            for result in shown_trials(contents):
                self._draw(result)
            write_report(contents)
        except Exception:
            _log.exception("the report of %s could not be written", self.search_id)
            return {}
        return {"report": self.folder.report.name}

    def _close_search(
        self, summary: Mapping[str, float], artifacts: dict[str, str], status: RunStatus
    ) -> None:
        """Record how the search ended. One that is interrupted has no summary, which would stay in
        MLflow when it is resumed: its curve says how far it is."""
        whole = {} if status == "interrupted" else self._summary(summary)
        tags = {"ended_by": self.ended_by} if self.ended_by else {}
        outcome = Outcome(status, self.curve.step, summary=whole, tags=tags, artifacts=artifacts)
        self._close_run(self.folder, outcome)

    def _summary(self, summary: Mapping[str, float]) -> dict[str, float]:
        counts = {"trials/running": 0.0, **count_endings(self._statuses())}
        seconds = {"wall_seconds": (self._end or time.monotonic()) - self._start}
        usage = self.control.usage
        hours = {"hours": usage.hours, "device_hours": usage.device_hours}
        return {**summary, **counts, **seconds, **hours, **self.context.extractor.summary}

    # -- events: pipelines.tuning.callbacks.EventHandler -----------------------------------------
    def handle(self, event: Event) -> None:
        """Record an event: perform what the recorder decides. Raises `LeaseLostError`."""
        require_held(self.folder)
        if isinstance(event, TrialEnded):
            _import_for_the_end(importances=self.run.trials >= MIN_TRIALS)
        before = self.state.best
        for action in self.state.handle(event):
            self._perform(action)
        if self._notices and self.state.best and self.state.best != before:
            self.notify("new best")
        self.progress.update()

    def step(self, now: float, running: Callable[[], Collection[str]]) -> None:
        """Meter the time that is used, and look whether the search is to end."""
        if self.state.may_end:
            return
        trials = len(self.state.running)
        fused = self.workers if trials else 0  # of those that start, none trains yet
        self.control.meter(now, trials * self.run.num_workers if fused is None else fused)
        if self.ended_by:
            return
        best = self.state.best[1] if self.state.best else None
        if reason := self.control.due(now, best):
            _log.info("%s: ending after the epochs that run", reason)
            self.handle(EndDue(reason, running()))

    @property
    def may_end(self) -> bool:
        """Whether the epochs have ended that ran when the search was to end."""
        if not self.state.may_end:
            return False
        if self.control.usage.ended_by != self.ended_by:
            self.control.end(self.ended_by)  # before Tune records that its trials have ended
        return True

    def notify(self, event: EventName, details: str = "") -> None:
        """Notify of an event, if that is asked for."""
        if not self._notices:
            return
        best, ended = self.state.best, self.state.num_ended
        if event != "new best":  # Tune may not have received the last epochs
            first = next(iter(self.ranking()), None)
            best = (first.trial_id, first.best.value) if first and first.best else best
        trials = f"{ended} of {self.run.trials} trials ended"
        found = f"{self.metric} {best[1]:.6g} (trial {best[0]})" if best else "no value yet"
        has_server = self._public_uri.startswith("http")
        parts = [f"{self.search_id}: {event}", found, trials, *filter(None, [details])]
        notice = Notice(
            event=event,
            text="; ".join(parts),
            search=self.search_id,
            family=self.run.family,
            metric=self.metric,
            value=best[1] if best else None,
            trials=ended,
            url=(run_page(self.folder) or "") if has_server else "",
            resume=resume_command(self.run, self.search_id),
        )
        self._notices.send(notice)

    def last_record(self, trial_id: str) -> EpochRecord | None:
        """Return a trial's last recorded epoch."""
        return self.folder.trial(trial_id).journal.last()

    def given_points(self) -> dict[str, Mapping[str, Any]]:
        """Return the points that were given for the search to try, flat, by their file's name."""
        return given_points(self.folder)

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
            searched=self.searched,
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
        self._record_end(folder.name, outcome)
        if action.status in TRIED:
            self.control.trial_ended(counted_values(self._cache.read(folder), objective))
        for epoch in damaged_epochs(folder.path, folder.files):
            if (folder.name, epoch) not in self._damaged:
                self._damaged.add((folder.name, epoch))
                _log.warning(DAMAGED, folder.name, epoch, epoch)
        self._show_end(folder, action, outcome)

    def _record_end(self, trial_id: str, outcome: Outcome) -> None:
        """Record in the search's own journal that a trial has ended, unless it is recorded."""
        if not self._lacks(trial_id, outcome):
            return
        totals = {**self.state.progress(), "device_hours": self.control.usage.device_hours}
        totals |= self.node_metrics.read() if self.node_metrics else {}
        self.curve.add(trial_id, outcome, totals)
        if (now := time.monotonic()) - self._curve_delivered > DELIVER_SECONDS:
            self._curve_delivered = now
            self.tracker.sync(self.folder.journal)

    def _lacks(self, trial_id: str, outcome: Outcome) -> bool:
        """Return whether the search's journal lacks an end of a trial that is to be recorded."""
        return outcome.ending not in FOR_NOW and not self.curve.has(trial_id, outcome)

    def _close_run(self, folder: RunFolder, outcome: Outcome) -> None:
        require_held(self.folder)
        folder.journal.close(outcome)
        self._cache.invalidate(folder)
        self.tracker.sync(folder.journal)

    def _show_end(self, folder: RunFolder, action: CloseTrial, outcome: Outcome) -> None:
        value = outcome.summary.get(f"best/{self.metric}")
        ranked = "no metric" if value is None else f"{self.metric} {value:.5g}"
        text = outcome.tags.get("message", ranked)
        info = self._cache.read(folder).info
        config = {name: info.params[name] for name in self.searched} if info else {}
        if action.status != "diverged":  # its message names the epoch
            text = f"epoch {action.last_epoch}, {text}"
        self.progress.trial_ended(action.trial_id, action.status, text, config)


@cache
def _import_for_the_end(*, importances: bool) -> None:
    """Import what the end of a search needs, which takes seconds, while its workers train. Called
    in the thread in which Tune unpickles, so that none does meanwhile. `importances`: whether its
    page shows them."""
    import_compiler()  # the champion's model is exported
    if importances:
        importlib.import_module("optuna.importance")
