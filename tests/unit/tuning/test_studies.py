"""Seed studies: which configs are studied, how, and what their statistics decide."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from support.search import METRIC, finish_tune, make_search, run_seeds, run_trial
from support.training import small_run

from pipelines.config.run import Run, Train, as_train
from pipelines.config.search import SeedStudy
from pipelines.tuning.result import search_result
from pipelines.tuning.search_run import SearchRun
from pipelines.tuning.studies import (
    make_study,
    run_seed_studies,
    studies_are_complete,
    study_of_trial,
)

VALUES = {"t1": [5.0, 3.0], "t2": [4.0, 2.0], "t3": [9.0, 8.0]}


@pytest.fixture
def search(tmp_path: Path) -> SearchRun:
    """A search that has ended, whose best two configs are to be studied with three seeds."""
    search = make_search(tmp_path, confirm=2, seeds=3)
    for name, values in VALUES.items():
        run_trial(search, name, values)
    finish_tune(search)
    return search


@pytest.fixture
def leases() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def seeds_with(**values: list[float]) -> Callable[[SearchRun], None]:
    """Return what runs a study: its seeds have the values given for its trial."""

    def run(study: SearchRun) -> None:
        assert study.run.seed_study
        run_seeds(study, values[study.run.seed_study.name])

    return run


def test_the_best_configs_are_studied_and_ranked_by_their_means(
    search: SearchRun, leases: ExitStack
) -> None:
    studies: dict[str, SearchRun] = {}
    run_seed_studies(search, studies, seeds_with(t2=[3.0, 4.0, 2.0], t1=[1.0, 2.0, 3.0]), leases)
    assert list(studies) == ["t2", "t1"]
    assert studies_are_complete(search, studies)
    ranking = search.ranking()
    # The lucky t2 has the worse mean; t3 was not studied.
    assert [result.trial_id for result in ranking] == ["t1", "t2", "t3"]
    assert [result.seeds and result.seeds.mean for result in ranking] == [2.0, 3.0, None]
    outcome = search.folder.trial("t2").journal.outcome()
    assert outcome and outcome.summary["confirm/mean"] == 3.0
    assert outcome.summary["confirm/recorded"] == 2.0
    assert outcome.summary[f"best/{METRIC}"] == 2.0  # its own is kept


def test_the_result_has_the_median_seed_of_the_best_config(
    search: SearchRun, leases: ExitStack
) -> None:
    studies: dict[str, SearchRun] = {}
    run_seed_studies(search, studies, seeds_with(t2=[3.0, 4.0, 2.0], t1=[1.0, 2.0, 3.0]), leases)
    result = search_result(search, studies)
    assert result.outcome == "completed" and result.exit_code == 0
    champion = result.champion
    assert champion and champion.of == "t1" and champion.trial_id == "seed-2"
    assert champion.value == 2.0 and champion.config["seed"] == 2
    assert champion.config["optim.lr"] == result.ranking[0].config["optim.lr"]
    assert champion.confirmed and champion.confirmed.mean == 2.0
    summary = result.studies["t2"]
    assert summary.seeds_beaten == 2 and summary.seed_study and summary.seed_study.value == 2.0
    assert summary.seed_statistics and summary.seed_statistics.seeds == 3


def test_the_other_studies_wait_for_one_that_was_interrupted(
    search: SearchRun, leases: ExitStack
) -> None:
    studies: dict[str, SearchRun] = {}
    run_seed_studies(search, studies, seeds_with(t2=[3.0], t1=[1.0]), leases)  # 1 of 3 seeds
    assert list(studies) == ["t2"]
    assert not studies_are_complete(search, studies)
    assert all(each.seeds is None for each in search.ranking())
    result = search_result(search, studies)
    assert result.outcome == "interrupted" and result.exit_code == 130
    assert result.champion is None


def test_studies_are_complete_when_all_that_are_due_have_ended(
    search: SearchRun, leases: ExitStack
) -> None:
    assert not studies_are_complete(search, {})
    studies: dict[str, SearchRun] = {}
    run_seed_studies(search, studies, seeds_with(t2=[1.0, 2.0, 3.0], t1=[1.0, 2.0, 3.0]), leases)
    assert not studies_are_complete(search, {"t2": studies["t2"]})
    search.run = replace(search.run, confirm=0)
    assert studies_are_complete(search, {})


def test_the_study_of_a_trial_has_its_config(search: SearchRun) -> None:
    study = study_of_trial(search, "t2")
    assert study.seed_study == SeedStudy(
        run="id-of-t2",
        name="t2",
        search_id="search-1",
        data_digest=search.context.dataset.digest,
        value=2.0,
    )
    assert study.optim.lr == search.ranking()[0].config["optim.lr"]
    assert study.store == search.run.store and study.trials == study.seeds == 3
    assert study.fuse == "auto"


def test_a_study_runs_each_seed_to_its_end() -> None:
    config = small_run(Train, num_workers=2, epochs=7)
    study = SeedStudy(run="r", name="n", search_id="", data_digest="d", value=None)
    fused, apart = make_study(config, study, 5, "auto"), make_study(config, study, 5, "off")
    for made in (fused, apart):
        assert made.trials == made.seeds == 5 and made.seed_study == study
        assert made.chosen_scheduler == "fifo" and made.chosen_searcher == "grid"
        assert made.epochs == 7
    # The result does not depend on the number of workers; fused trials have one.
    assert fused.num_workers == 1 and fused.is_fused
    assert apart.num_workers == 2 and not apart.is_fused
    assert as_train(apart) == config
    same: Run = replace(config, num_workers=1)
    assert as_train(fused) == same
