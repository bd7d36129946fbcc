"""What a search's page shows, computed from the search's journals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal

from pipelines.analysis.best_epoch import best_epoch
from pipelines.analysis.champion import Selection, num_seeds_beaten, select_champion
from pipelines.analysis.comparability import comparison_key
from pipelines.analysis.failures import Failure, failures
from pipelines.analysis.importance import Importances, setting_importances
from pipelines.analysis.pareto import pareto_front
from pipelines.analysis.ranges import SettingRange, setting_ranges
from pipelines.analysis.ranking import TrialResult, rank_trials
from pipelines.config.objectives import Objective
from pipelines.config.search import Search
from pipelines.config.serialization import result_settings
from pipelines.report.results import EdgeSetting
from pipelines.report.run_pages import LOCAL_PAGE, run_page, tracking_page
from pipelines.store.journal import RunInfo
from pipelines.store.layout import SearchFolder
from pipelines.store.lease import seems_held
from pipelines.store.scan import JournalCache, RunRecord, trial_endings
from pipelines.store.usage import Usage, read_usage


@dataclass(frozen=True)
class Rung:
    """An epoch after which trials were stopped."""

    epoch: int
    reached: int
    """Trials that have trained so many epochs."""
    stopped: int
    """Of these, trials that were stopped there."""


SearchState = Literal["running", "interrupted", "ended"]
"""interrupted: its process has gone, and the trials that were running can be resumed."""


@dataclass(frozen=True)
class SearchContents:
    """What is recorded of a search, for its page.

    `records`: of all its trials. `searched`: the settings that differ between them.
    """

    folder: SearchFolder
    run: Search
    info: RunInfo
    records: Sequence[RunRecord]
    searched: Sequence[str]
    state: SearchState

    @property
    def name(self) -> str:
        """The search's id."""
        return self.folder.name

    @property
    def objective(self) -> Objective:
        """The objective that ranks."""
        return self.run.objective

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """All objectives."""
        return self.run.objectives

    @property
    def key(self) -> str:
        """The comparison key."""
        return comparison_key(self.info.params, self.info.tags, self.objective.metric)

    # -- trials -------------------------------------------------------------------------------
    @cached_property
    def ranking(self) -> list[TrialResult]:
        """The trials that have ended, the best first."""
        return rank_trials(self.records, self.objective, self.searched)

    @cached_property
    def valued(self) -> list[TrialResult]:
        """The trials that have ended and have a value, the best first."""
        return [result for result in self.ranking if result.best]

    @cached_property
    def running(self) -> list[RunRecord]:
        """The trials that have begun and not ended; if the search is interrupted, so are they."""
        return [r for r in self.records if r.info and not r.has_ended and not r.damage]

    @property
    def open_state(self) -> str:
        """What those trials are called."""
        return "interrupted" if self.state == "interrupted" else "running"

    @cached_property
    def trained(self) -> list[RunRecord]:
        """The trials that count: those that have ended, and those that run."""
        return [*(result.record for result in self.ranking), *self.running]

    @cached_property
    def endings(self) -> list[str]:
        """How each trial that has ended did; `damaged` if it is set aside."""
        return trial_endings(self.records)

    @cached_property
    def damaged(self) -> list[RunRecord]:
        """The trials that are set aside because their journals are damaged."""
        return [record for record in self.records if record.damage]

    @cached_property
    def selection(self) -> Selection:
        """The champion, or of a seed study the seed that stands for the config."""
        return select_champion(self.ranking, self.objective, self.run.seed_study)

    @cached_property
    def seeds_beaten(self) -> int | None:
        """Of a seed study: how many seeds the studied run is better than."""
        return num_seeds_beaten(self.run.seed_study, self.ranking, self.objective)

    @cached_property
    def front(self) -> list[TrialResult]:
        """The Pareto front; [] with a single objective."""
        return pareto_front(self.valued, self.objectives) if self.run.further else []

    @cached_property
    def settings_change(self) -> bool:
        """Whether trials change their settings while they run (population based training)."""
        return any(result.best and result.best.settings for result in self.ranking)

    @cached_property
    def failures(self) -> list[Failure]:
        """The trials that failed, by their reasons, the most frequent first."""
        return failures(self.ranking)

    # -- settings -----------------------------------------------------------------------------
    @cached_property
    def ranges(self) -> dict[str, SettingRange]:
        """The range of each searched setting."""
        return setting_ranges(self.run, self.searched, [each.config for each in self.valued])

    @cached_property
    def edges(self) -> tuple[EdgeSetting, ...]:
        """The settings of the champion that lie at an edge of the space, with the flag that widens
        it; of a seed study none."""
        winner = self.selection.winner
        if winner is None or winner.best is None or self.run.seed_study:
            return ()
        found = []
        for name in self.searched:
            scale, value = self.ranges[name], winner.config.get(name)
            if edge := scale.edge(value):
                flag = f"--space '{name}={scale.widened(edge).as_domain()}'"
                found.append(
                    EdgeSetting(name=name, value=value, edge=edge, range=str(scale), flag=flag)
                )
        return tuple(found)

    @cached_property
    def importances(self) -> dict[Objective, Importances]:
        """The importances of the settings for each objective, where enough trials have a value; of
        a seed study none."""
        if self.run.seed_study:
            return {}
        found = {}
        for objective in self.objectives:
            values = [result.values([objective])[0] for result in self.valued]
            known = [
                (r.config, v) for r, v in zip(self.valued, values, strict=True) if v is not None
            ]
            configs, costs = [c for c, _ in known], [objective.cost(v) for _, v in known]
            if computed := setting_importances(configs, costs, self.ranges):
                found[objective] = computed
        return found

    @cached_property
    def most_important(self) -> list[str]:
        """The searched settings, the most important first; in the space's order if no importances
        are known."""
        found = self.importances.get(self.objective)
        return found.names if found else list(self.ranges)

    # -- time ---------------------------------------------------------------------------------
    @cached_property
    def in_order(self) -> list[TrialResult]:
        """The trials that have ended, in the order in which they did."""
        return sorted(self.ranking, key=lambda each: (each.record.ended_ms(), each.trial_id))

    def seconds(self, record: RunRecord) -> float:
        """Return the seconds of training of a trial on a core or a GPU, over all its workers."""
        seconds = sum(each.metrics.get("epoch_seconds", 0.0) for each in record.counted())
        return seconds * self.run.num_workers

    @cached_property
    def device_hours(self) -> float:
        """The hours of training of all trials that count, on a core or a GPU."""
        return sum(map(self.seconds, self.trained)) / 3600.0

    @cached_property
    def num_epochs(self) -> int:
        """The epochs of all trials that count."""
        return sum(len(record.counted()) for record in self.trained)

    @cached_property
    def history(self) -> list[tuple[int, float, float | None, float | None]]:
        """For each trial that has ended, in order: how many had, the hours of training of these,
        its value and the best value so far."""
        hours = accumulate(self.seconds(each.record) / 3600.0 for each in self.in_order)
        best: float | None = None
        found = []
        for number, (result, spent) in enumerate(zip(self.in_order, hours, strict=True), 1):
            value = result.best.value if result.best else None
            if value is not None and (best is None or self.objective.better(value, best)):
                best = value
            found.append((number, spent, value, best))
        return found

    @cached_property
    def usage(self) -> Usage:
        """The time that the search has used, and what has ended it early."""
        return read_usage(self.folder)

    # -- early stopping -----------------------------------------------------------------------
    @cached_property
    def saved_epochs(self) -> int:
        """The epochs that trials which were stopped early did not train."""
        stopped = [each for each in self.ranking if each.outcome.ending == "stopped_early"]
        return sum(max(0, self.run.epochs - each.outcome.last_epoch) for each in stopped)

    @cached_property
    def saved_share(self) -> float:
        """Those epochs as a part of all that would have been trained."""
        whole = self.saved_epochs + self.num_epochs
        return self.saved_epochs / whole if whole else 0.0

    @cached_property
    def last_epochs(self) -> list[tuple[int, str]]:
        """For each trial that counts the epochs that it was trained for, and how it ended, or
        `open_state`."""
        ended = [(each.outcome.last_epoch, str(each.outcome.ending)) for each in self.ranking]
        return [*ended, *((record.last_epoch, self.open_state) for record in self.running)]

    @cached_property
    def rungs(self) -> list[Rung]:
        """The epochs after which trials were stopped early, and the last one."""
        last = self.last_epochs
        stops = {epoch for epoch, ending in last if ending == "stopped_early"}
        return [
            Rung(
                epoch,
                sum(each >= epoch for each, _ in last),
                sum(each == (epoch, "stopped_early") for each in last),
            )
            for epoch in sorted({*stops, self.run.epochs})
        ]

    # -- MLflow -------------------------------------------------------------------------------
    def run_url(self, record: RunRecord) -> str | None:
        """Return the address of a trial's run on MLflow's page; None if it is not delivered
        yet."""
        return run_page(record.folder)

    @property
    def run_url_of_search(self) -> str | None:
        """The address of the search's own run on MLflow's page."""
        return run_page(self.folder)

    @property
    def page_is_local(self) -> bool:
        """Whether MLflow's page is there only while `genpipe browse` serves it."""
        return tracking_page(str(self.folder.journal.delivered().get("uri", ""))) == LOCAL_PAGE


def read_contents(folder: SearchFolder, run: Search) -> SearchContents:
    """Read the journals of a search, also of one that runs. `run`: its config.

    Raises `DamagedError` if the search's own journal is damaged or has not begun.
    """
    records = JournalCache().read_trials(folder)
    state: SearchState = "running" if seems_held(folder) else "interrupted"
    if folder.journal.outcome() is not None:
        state = "ended"
    return make_contents(folder, run, records, state)


def make_contents(
    folder: SearchFolder, run: Search, records: Sequence[RunRecord], state: SearchState
) -> SearchContents:
    """Return what the page shows of a search whose trials' journals were read."""
    info = folder.journal.required_info()
    return SearchContents(folder, run, info, records, _searched(info, records), state)


def best_so_far(record: RunRecord, objective: Objective) -> float | None:
    """Return the value of a trial at its best epoch, also while it runs."""
    best = best_epoch(record, objective)
    return best.value if best else None


def _searched(info: RunInfo, records: Sequence[RunRecord]) -> list[str]:
    """Return the settings that differ between trials: those that the search's journal names, or
    that version 0.1 did not record and that differ."""
    params = [record.info.params for record in records if record.info]
    if "searched" in info.params:
        names = str(info.params["searched"]).split()
    else:
        names = [n for n in info.params if len({str(each.get(n)) for each in params}) > 1]
    return [name for name in names if all(name in each for each in params)]


def differing_settings(contents: Sequence[SearchContents]) -> dict[str, list[Any]]:
    """Return the settings and the provenance in which searches differ, each with a value for every
    search; None where one lacks it."""
    described = [_described(each) for each in contents]
    names = dict.fromkeys(name for each in described for name in each)
    found = {name: [each.get(name) for each in described] for name in names}
    return {name: values for name, values in found.items() if len(set(map(str, values))) > 1}


_DESCRIBED_TAGS = ("family", "data_digest", "objectives", "git_commit", "features")


def _described(each: SearchContents) -> Mapping[str, Any]:
    tags = {name: each.info.tags[name] for name in _DESCRIBED_TAGS if name in each.info.tags}
    searched = {name: f"searched: {scale}" for name, scale in each.ranges.items()}
    return {**result_settings(each.run), **tags, **searched}
