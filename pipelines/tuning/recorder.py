"""A search as it is recorded: Tune's events become journals, journals become MLflow runs.

The search is a parent run and each trial a child, written by the process that runs the search
and by nobody else.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from pipelines.analysis.champion import verdict
from pipelines.analysis.pareto import front
from pipelines.analysis.ranking import Standing, as_csv, journals, standings
from pipelines.analysis.run_results import (
    better,
    identity,
    outcome,
    prune,
    search_tags,
    write_samples,
)
from pipelines.config.run import Search, as_train, with_sampled
from pipelines.store.journal import Ending, Journal, Outcome, write_whole
from pipelines.tracking import Tracker
from pipelines.training.payload import trial_folder
from pipelines.training.preflight import Plan
from pipelines.tuning.progress import SearchProgress

_log = logging.getLogger(__name__)

SYNC_SECONDS = 3.0
"""Of a trial's epochs that follow each other faster, MLflow is told together."""

_RECORDERS: dict[str, Recorder] = {}
"""The recorders of this process, by search. Tune pickles its callbacks and brings the pickled
ones back on resume, so a callback holds a name and no recorder."""


class TuneEvents(tune.Callback):
    """Passes Tune's events to this process's recorder of the search."""

    def __init__(self, search_id: str) -> None:
        self.search_id = search_id

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        _RECORDERS[self.search_id].trial_started(trial)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        _RECORDERS[self.search_id].trial_reported(trial, result)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        _RECORDERS[self.search_id].trial_completed(trial)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        _RECORDERS[self.search_id].trial_failed(trial)


class Recorder:
    """Keeps the journals of one search. `searched`: the settings that differ between trials."""

    def __init__(
        self, plan: Plan[Search], folder: Path, tracker: Tracker, searched: list[str]
    ) -> None:
        self.plan, self.run, self.folder, self.tracker = plan, plan.run, folder, tracker
        self.searched = searched
        self.search_id = folder.name
        self.journal = Journal(folder)
        self.progress = SearchProgress(self.run.trials, self.run.epochs, self.run.metric)
        self._start, self._end = time.monotonic(), 0.0
        self._seen: set[str] = set()
        self._synced: dict[str, float] = {}
        _RECORDERS[self.search_id] = self

    # -- the search ---------------------------------------------------------------------------
    def open(self, run: Search) -> None:
        """Write down that the search begins, or goes on; `run`: with nothing left to choose."""
        self.run = run
        known = identity(
            self.run,
            self.plan.dataset,
            kind="confirmation" if run.confirms else "search",
            name=self.search_id,
            experiment=self.plan.experiment,
            search_id=self.search_id,
            searched=self.searched,
        )
        self.journal.open(replace(known, tags={**known.tags, **search_tags(run)}))
        self.tracker.sync(self.journal)
        ranking = self.standings()
        for standing in ranking:
            self._count(standing.outcome.ending)
        if ranking and ranking[0].best:
            self.progress.best = (ranking[0].trial_id, ranking[0].best.value)
        self.progress.update()

    def finished(self, trial_ids: Collection[str]) -> None:
        """Tune has ended, and run what it could of every trial that it knows of."""
        self.progress.close()
        self._end = time.monotonic()
        known = {*trial_ids, *self._seen}
        for journal in journals(self.folder):
            if known and journal.run_folder.name not in known:
                last = max(journal.epochs(), default=0)
                self._close(journal, "superseded", last, "tried again: Tune had not saved it")

    def end(self) -> None:
        """Close what the search left open, now that Ray has gone."""
        self.progress.close()
        if self.journal.identity() is None:
            return  # it never began
        for journal in journals(self.folder):
            if journal.outcome() is None:
                self._close(journal, "interrupted", max(journal.epochs(), default=0))
        if self.ending != "completed":
            self._close_search({}, {})

    @property
    def ending(self) -> Ending:
        """How the search stands: completed when every trial has ended."""
        endings = [standing.outcome.ending for standing in self.standings()]
        over = len(endings) >= self.run.trials and "interrupted" not in endings
        return "completed" if over else "interrupted"

    def standings(self) -> list[Standing]:
        """The trials that have ended, the best first."""
        return standings(self.folder, self.run.metric, self.run.mode, self.searched)

    def confirmed(self, trial_id: str, summary: Mapping[str, float]) -> None:
        """Note with a trial what other seeds make of its config."""
        journal = self._trial_journal(trial_id)
        ended = journal.outcome()
        assert ended
        journal.close(replace(ended, summary={**ended.summary, **summary}))
        self.tracker.sync(journal)

    def crown(self, *, register: bool) -> None:
        """Close a search that has ended. Its winner's checkpoint becomes a model, registered if
        asked for, which claims the alias `champion`."""
        if self.ending != "completed":
            return
        ranking = self.standings()
        found, on_front = verdict(self.run, ranking), self._mark_front(ranking)
        table = self.folder / "trials.csv"
        further = [metric for metric, _ in self.run.further]
        write_whole(table, as_csv(ranking, self.run.metric, further, on_front))
        artifacts = {"search": str(table)}
        winner = found.winner
        if winner and winner.best:
            picture = write_samples(winner.best.checkpoint, self.folder / "champion.png")
            artifacts |= {"samples": str(picture)}
            journal = self._trial_journal(winner.trial_id)
            ended = journal.outcome()
            assert ended
            crowned = replace(
                ended,
                checkpoint=str(winner.best.checkpoint),
                register=self.plan.experiment if register else "",
                champion=found.claim if register else {},
                artifacts={"samples": str(picture)},
            )
            journal.close(crowned)
            self.tracker.sync(journal)
        self._close_search(found.summary, artifacts | self._report())

    def _mark_front(self, ranking: Sequence[Standing]) -> list[str]:
        """Tag the trials of the Pareto front in MLflow; their ids."""
        found = front(ranking, self.run.objectives) if self.run.further else []
        for standing in found:
            ended, journal = standing.outcome, self._trial_journal(standing.trial_id)
            journal.close(replace(ended, tags={**ended.tags, "pareto_front": "true"}))
            self.tracker.sync(journal)
        return [standing.trial_id for standing in found]

    def _report(self) -> dict[str, str]:
        """The search's page. Without one, a search is no less complete."""
        from pipelines.report import write_report  # and with it matplotlib, which takes a second

        run = self.run
        try:
            page = write_report(self.folder, run.metric, run.mode, self.searched, run.further)
        except Exception:
            _log.exception("no report of %s", self.search_id)
            return {}
        return {"report": str(page)}

    def _close_search(self, summary: dict[str, float], artifacts: dict[str, str]) -> None:
        endings = [s.outcome.ending for s in self.standings()]
        counts = {f"trials/{e}": float(endings.count(e)) for e in set(endings)}
        seconds = {"wall_seconds": (self._end or time.monotonic()) - self._start}
        self.journal.close(
            Outcome(
                ending=self.ending,
                last_epoch=0,
                summary=summary | counts | seconds | self.plan.extractor.summary,
                artifacts=artifacts,
            )
        )
        self.tracker.sync(self.journal)

    # -- its trials ---------------------------------------------------------------------------
    def trial_started(self, trial: Trial) -> None:
        self._seen.add(trial.trial_id)
        folder = trial_folder(self.folder, trial.trial_id)
        run = as_train(with_sampled(self.run, trial.config))
        journal = Journal(folder)
        journal.open(
            identity(
                run,
                self.plan.dataset,
                kind="trial",
                name=trial.trial_id,
                experiment=self.plan.experiment,
                search_id=self.search_id,
                trial_id=trial.trial_id,
                parent=os.path.relpath(self.folder, folder),
            )
        )
        self.tracker.sync(journal)
        self.progress.running[trial.trial_id] = max(journal.epochs(), default=0)
        self.progress.update()

    def trial_reported(self, trial: Trial, result: Mapping[str, Any]) -> None:
        epoch = int(result["epoch"])
        value = float(result[self.run.metric])
        now = time.monotonic()
        if now - self._synced.get(trial.trial_id, 0.0) > SYNC_SECONDS:
            self._synced[trial.trial_id] = now
            self.tracker.sync(self._trial_journal(trial.trial_id), upto=epoch)
        self.progress.running[trial.trial_id] = epoch
        best = self.progress.best
        if not result["diverged"] and (not best or better(value, best[1], self.run.mode)):
            self.progress.best = (trial.trial_id, value)
        self.progress.update()

    def trial_completed(self, trial: Trial) -> None:
        """Tune can miss the last report of a run that ends by itself (it takes the end for
        that report's duplicate if it hears of it first), but the journal cannot."""
        epoch = int((trial.last_result or {}).get("epoch", 0))
        final = self._trial_journal(trial.trial_id).last()
        ending: Ending = "stopped_early"
        if final and (final.metrics["diverged"] or final.epoch >= self.run.epochs):
            ending = "diverged" if final.metrics["diverged"] else "completed"
            epoch = final.epoch
        self._trial_ended(trial, ending, epoch)

    def trial_failed(self, trial: Trial) -> None:
        epoch = int((trial.last_result or {}).get("epoch", 0))
        lines = str(trial.get_error() or "it died without a word").strip().splitlines()
        self._trial_ended(trial, "failed", epoch, lines[-1])

    def _trial_ended(self, trial: Trial, ending: Ending, epoch: int, message: str = "") -> None:
        journal = self._trial_journal(trial.trial_id)
        found = self._close(journal, ending, epoch, message)
        if self.run.is_fused:
            best = found.summary.get("best/epoch", 0)
            prune(journal.run_folder, {int(best)})  # nobody goes on from the others
        self.progress.running.pop(trial.trial_id, None)
        self._synced.pop(trial.trial_id, None)
        self._count(ending)
        value = found.summary.get(f"best/{self.run.metric}")
        text = message or ("no metric" if value is None else f"{self.run.metric} {value:.5g}")
        known = journal.identity()
        config = {name: known.params[name] for name in self.searched} if known else {}
        self.progress.trial_ended(trial.trial_id, ending, config, f"epoch {epoch}, {text}")

    def _trial_journal(self, trial_id: str) -> Journal:
        return Journal(trial_folder(self.folder, trial_id))

    def _close(self, journal: Journal, ending: Ending, epoch: int, message: str = "") -> Outcome:
        found = outcome(journal.run_folder, self.run, ending, epoch, message)
        journal.close(found)
        self.tracker.sync(journal)
        return found

    def _count(self, ending: str) -> None:
        self.progress.ended += ending != "interrupted"
        self.progress.stopped_early += ending == "stopped_early"
