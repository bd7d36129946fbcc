"""Seed studies: a config trained again with other seeds, to tell a good config from a lucky one.

A seed study is a search over the seed of one recorded config. A search makes one of each of its
best configs when `--confirm` asks for it; `pipelines.tuning.replication` makes one of any recorded
run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import ExitStack
from dataclasses import fields, replace

from pipelines.analysis.ranking import most_promising
from pipelines.config.run import Run, Train, as_train
from pipelines.config.search import Fuse, Search, SeedStudy
from pipelines.config.serialization import load_config
from pipelines.config.space import seed_space
from pipelines.store.lease import holding
from pipelines.store.stop_request import withdraw_request
from pipelines.tuning.search_run import SearchRun

_log = logging.getLogger(__name__)


def run_seed_studies(
    search: SearchRun,
    studies: MutableMapping[str, SearchRun],
    run_trials: Callable[[SearchRun], None],
    leases: ExitStack,
) -> None:
    """Study the best configs of a search that has ended, one after the other, until one study is
    interrupted. `studies` receives them by trial id, as they start, and `leases` the leases of
    their folders; `run_trials` runs one."""
    run = search.run
    for result in most_promising(search.ranking(), run.objective, run.confirm):
        context = replace(search.context, run=study_of_trial(search, result.trial_id))
        folder = search.folder.study(result.trial_id, run.seeds)
        leases.enter_context(holding(folder, "confirm"))
        withdraw_request(folder)
        study = SearchRun(context, folder, search.tracker, ["seed"], within=search.folder)
        studies[result.trial_id] = study
        _log.info("trial %s: training its config with %d other seeds", result.trial_id, run.seeds)
        run_trials(study)
        if study.status != "completed" or study.ended_by:
            return
        search.add_seed_statistics(result.trial_id, study.selection().summary)


def studies_are_complete(search: SearchRun, studies: Mapping[str, SearchRun]) -> bool:
    """Return whether a search and every seed study that was asked for have ended. One that was
    stopped lacks seeds."""
    if any(each.status != "completed" for each in (search, *studies.values())):
        return False
    if any(study.ended_by for study in studies.values()):
        return False
    run = search.run
    due = most_promising(search.ranking(), run.objective, run.confirm) if run.confirm else []
    return len(studies) == len(due)


def ended_before(search: SearchRun, studies: Mapping[str, SearchRun]) -> str:
    """Return why a search or a seed study of it has ended before all its trials had; "" if none
    has."""
    return next((each.ended_by for each in (*studies.values(), search) if each.ended_by), "")


def study_of_trial(search: SearchRun, trial_id: str) -> Search:
    """Return the seed study of a trial of a search, which runs where the search ran. The number of
    trials per device is the default, because the config may be larger than the search's own."""
    run, folder = search.run, search.folder.trial(trial_id)
    info, outcome = folder.journal.info(), folder.journal.outcome()
    assert info and outcome
    config = as_train(load_config(folder.files.read(folder.config), str(folder.config)))
    study = SeedStudy(
        run=search.tracker.run_id(folder.journal) or info.name,
        name=info.name,
        search_id=search.search_id,
        data_digest=search.context.dataset.digest,
        value=outcome.summary.get(f"best/{config.metric}"),
    )
    return replace(
        make_study(config, study, run.seeds, "auto" if run.is_fused else "off"),
        store=run.store,
        tracking_uri=run.tracking_uri,
        address=run.address,
        data_root=run.data_root,
        tag=run.tag,
        note=None,
        download=run.download,
        max_concurrent=run.max_concurrent,
        execution=run.execution,
        json=run.json,
    )


def make_study(config: Train, study: SeedStudy, seeds: int, fuse: Fuse) -> Search:
    """Return a search with one trial per seed, each run to its end. Fused trials have one worker:
    the result does not depend on how many the run had."""
    content = {f.name: getattr(config, f.name) for f in fields(Run)}
    if fuse != "off":
        content["num_workers"] = 1
    return Search(
        **content,
        space=seed_space(config.seed, seeds),
        trials=seeds,
        seeds=seeds,
        scheduler="fifo",
        searcher="grid",
        grace_period=1,
        fuse=fuse,
        seed_study=study,
    )
