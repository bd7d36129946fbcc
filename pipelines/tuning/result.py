"""The result of a search, with the seed studies of its best configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pipelines.analysis.champion import num_seeds_beaten
from pipelines.analysis.failures import failures
from pipelines.analysis.ranking import TrialResult
from pipelines.config.command import resume_command
from pipelines.report.results import SearchResult, StudySummary, TrialRow, existing
from pipelines.store.secrets import hide
from pipelines.tuning.search_run import SearchRun
from pipelines.tuning.studies import ended_before


def search_result(search: SearchRun, studies: Mapping[str, SearchRun]) -> SearchResult:
    """Return the result of a search. `studies`: its seed studies, by the trial whose config they
    train. If seed studies were asked for, the champion is a seed of the best config's study."""
    result = _result(search)
    if not search.run.confirm:
        return result
    results = {trial_id: _result(study) for trial_id, study in studies.items()}
    interrupted = any(each.outcome != "completed" for each in results.values())
    best = result.ranking[0] if result.ranking else None
    champion, samples = None, result.samples
    if best and best.confirmed and best.trial_id in results:
        study = results[best.trial_id]
        samples = study.samples
        if study.champion:
            config = {**best.config, **study.champion.config}
            champion = replace(
                study.champion, config=config, confirmed=best.confirmed, of=best.trial_id
            )
    return replace(
        result,
        outcome="interrupted" if interrupted else result.outcome,
        champion=champion,
        samples=samples,
        studies={trial_id: _summary(each) for trial_id, each in results.items()},
        ended_by=(ended_by := ended_before(search, studies)),
        resume=resume_command(search.run, search.search_id) if ended_by else "",
    )


def _result(search: SearchRun) -> SearchResult:
    """Return the result of one search, without its seed studies."""
    run, ranking, selection = search.run, search.ranking(), search.selection()
    rows = {result.trial_id: _row(search, result) for result in ranking}
    return SearchResult(
        search_id=search.search_id,
        run_id=search.tracker.run_id(search.folder.journal),
        experiment=search.context.experiment,
        registered_model=search.context.registered_model,
        tracking_uri=hide(search.context.uri),
        outcome=search.status,
        metric=run.metric,
        mode=run.mode,
        objectives=run.objectives,
        champion=rows[selection.winner.trial_id] if selection.winner else None,
        ranking=tuple(rows.values()),
        pareto=tuple(rows[result.trial_id] for result in search.pareto()),
        samples=existing(search.folder.champion_samples),
        report=existing(search.folder.report),
        seed_study=run.seed_study,
        seed_statistics=selection.seeds,
        seeds_beaten=num_seeds_beaten(run.seed_study, ranking, run.objective),
        edges=search.contents().edges,
        failures={each.reason: len(each.trial_ids) for each in failures(ranking)},
        ended_by=search.ended_by,
        resume=resume_command(search.run, search.search_id) if search.ended_by else "",
        hours=search.control.usage.hours,
        device_hours=search.control.usage.device_hours,
    )


def _row(search: SearchRun, result: TrialResult) -> TrialRow:
    run_id = search.tracker.run_id(result.record.folder.journal)
    return TrialRow.from_result(result, search.run.objectives, run_id)


def _summary(study: SearchResult) -> StudySummary:
    return StudySummary(
        search_id=study.search_id,
        run_id=study.run_id,
        outcome=study.outcome,
        seed_study=study.seed_study,
        seed_statistics=study.seed_statistics,
        seeds_beaten=study.seeds_beaten,
        failures=study.failures,
    )
