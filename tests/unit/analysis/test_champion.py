"""THE rule for the champion: which trial is selected, and which model takes the alias."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.journals import ELBO_MAX, FD_MIN, METRIC, read_run, read_trials, write_run

from pipelines.analysis.champion import (
    Claim,
    Selection,
    num_seeds_beaten,
    select_champion,
    trial_with_best_mean,
)
from pipelines.analysis.ranking import TrialResult, rank_trials
from pipelines.analysis.seeds import SeedStatistics
from pipelines.config.objectives import Objective
from pipelines.config.search import SeedStudy

STUDY = SeedStudy(run="a", name="a", search_id="", data_digest="d", value=-1.0)


def seed_study(folder: Path, values: list[float]) -> list[TrialResult]:
    """Return the ranking of a seed study whose seeds have these values."""
    for seed, value in enumerate(values, 1):
        write_run(folder / "trials" / f"seed-{seed}", [value], params={"seed": seed})
    return rank_trials(read_trials(folder), ELBO_MAX, ["seed"])


def select(folder: Path, values: list[float], study: SeedStudy | None = STUDY) -> Selection:
    return select_champion(seed_study(folder, values), ELBO_MAX, study)


def test_a_search_selects_its_best_trial(tmp_path: Path) -> None:
    found = select(tmp_path, [-7.0, -2.0, -3.0], study=None)
    assert found.winner and found.winner.trial_id == "seed-2"
    assert found.claim == Claim(ELBO_MAX, -2.0)
    assert found.summary == {f"best/{METRIC}": -2.0} and found.seeds is None


def test_a_search_without_a_value_selects_none(tmp_path: Path) -> None:
    write_run(tmp_path / "trials/dead", [], [], "failed")
    ranking = rank_trials(read_trials(tmp_path), ELBO_MAX, [])
    assert select_champion(ranking, ELBO_MAX) == Selection(None)
    assert select_champion([], ELBO_MAX) == Selection(None)
    assert select_champion([], ELBO_MAX, STUDY) == Selection(None)
    assert select_champion(ranking, ELBO_MAX, STUDY) == Selection(None)


def test_the_median_seed_represents_its_config(tmp_path: Path) -> None:
    found = select(tmp_path, [-7.0, -2.0, -3.0])
    assert found.winner and found.winner.trial_id == "seed-3"
    assert found.claim == Claim(ELBO_MAX, -4.0, seeds=3)
    assert found.claim.as_tags() == {"metric": METRIC, "mode": "max", "value": -4.0, "seeds": 3}
    assert found.summary["confirm/recorded"] == -1.0
    assert found.summary["confirm/best"] == -2.0 and found.summary["confirm/worst"] == -7.0
    assert found.summary["confirm/sem"] == pytest.approx(7**0.5 / 3**0.5)
    assert found.seeds == SeedStatistics.of([-7.0, -2.0, -3.0], ELBO_MAX)


def test_of_two_in_the_middle_the_worse_represents_its_config(tmp_path: Path) -> None:
    found = select(tmp_path, [-1.0, -2.0, -3.0, -4.0])
    assert found.winner and found.winner.trial_id == "seed-3"


def test_one_seed_has_no_mean_and_claims_nothing(tmp_path: Path) -> None:
    found = select(tmp_path, [-1.0])
    assert found.winner and not found.summary and not found.claim and found.seeds is None


def test_a_seed_that_was_lost_is_counted_and_represents_nothing(tmp_path: Path) -> None:
    write_run(tmp_path / "trials/lost", [0.0], [1], "diverged", params={"seed": 9})
    found = select(tmp_path, [-1.0, -2.0, -3.0])
    assert found.winner and found.winner.trial_id == "seed-2"
    assert found.seeds and (found.seeds.seeds, found.seeds.lost) == (3, 1)


def test_a_studied_run_without_a_value_is_not_in_the_summary(tmp_path: Path) -> None:
    found = select(tmp_path, [-1.0, -2.0], replace(STUDY, value=None))
    assert "confirm/recorded" not in found.summary and found.summary["confirm/mean"] == -1.5


def test_a_search_notes_the_statistics_of_its_best_config(tmp_path: Path) -> None:
    ranking = seed_study(tmp_path, [-1.0, -2.0])
    seeds = SeedStatistics.of([-3.0, -5.0], ELBO_MAX)
    assert seeds
    found = select_champion([replace(ranking[0], seeds=seeds), ranking[1]], ELBO_MAX)
    assert found.summary == {f"best/{METRIC}": -1.0, **seeds.summary()}


# -- the alias -----------------------------------------------------------------------------------
HERE = "digits"


def claim(
    value: float, objective: Objective = ELBO_MAX, key: str = HERE, seeds: int | None = None
) -> Claim:
    return Claim(objective, value, key, seeds)


CLAIMS: dict[str, tuple[Claim, Claim | None, bool]] = {
    "nobody holds it": (claim(-9.0), None, True),
    "better": (claim(-1.0), claim(-2.0), True),
    "equal": (claim(-2.0), claim(-2.0), True),
    "worse": (claim(-3.0), claim(-2.0), False),
    "better, small is good": (claim(1.0, FD_MIN), claim(2.0, FD_MIN), True),
    "worse, small is good": (claim(3.0, FD_MIN), claim(2.0, FD_MIN), False),
    "another metric": (claim(99.0, FD_MIN), claim(-2.0), False),
    "another direction": (claim(-9.0), claim(-2.0, Objective(METRIC, "min")), False),
    "another key": (claim(-1.0, key="other"), claim(-2.0), False),
    "a mean against one value that is better": (claim(-9.0, seeds=3), claim(-2.0), True),
    "one value that is better against a mean": (claim(-1.0), claim(-2.0, seeds=3), False),
    "a better mean": (claim(-1.0, seeds=3), claim(-2.0, seeds=50), True),
    "an equal mean": (claim(-2.0, seeds=3), claim(-2.0, seeds=3), True),
    "a worse mean over more seeds": (claim(-3.0, seeds=50), claim(-2.0, seeds=3), False),
    "a mean of another key": (claim(-1.0, key="other", seeds=3), claim(-2.0), False),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_a_claim_takes_the_alias_unless_the_holder_is_better(case: str) -> None:
    new, holder, expected = CLAIMS[case]
    assert new.takes_alias_from(holder) is expected


@pytest.mark.parametrize("made", [claim(-1.5), claim(2.0, FD_MIN, "d", 50)])
def test_a_claim_is_read_back_from_tags(made: Claim) -> None:
    tags = {name: str(value) for name, value in made.as_tags().items()}
    assert Claim.from_tags({**tags, "comparable": made.comparable, "run_id": "x"}) == made


@pytest.mark.parametrize(
    "tags", [{}, {"metric": "a", "mode": "max"}, {"value": "1.0"}, {"run_id": "x"}]
)
def test_a_version_that_made_no_claim_has_none(tags: dict[str, str]) -> None:
    assert Claim.from_tags(tags) is None


# -- seed studies --------------------------------------------------------------------------------
def test_the_best_mean_provides_the_champion_once_all_studies_are_complete(
    tmp_path: Path,
) -> None:
    first, second = seed_study(tmp_path, [-1.0, -2.0])
    seeds = SeedStatistics.of([-3.0, -5.0], ELBO_MAX)
    studied = [replace(second, seeds=seeds), first]
    assert trial_with_best_mean(studied, complete=True) == "seed-2"
    assert trial_with_best_mean(studied, complete=False) is None
    assert trial_with_best_mean([first, second], complete=True) is None
    assert trial_with_best_mean([], complete=True) is None


def test_the_studied_run_beats_seeds_that_are_worse(tmp_path: Path) -> None:
    ranking = seed_study(tmp_path, [-0.5, -1.0, -2.0, -3.0])
    record = read_run(write_run(tmp_path / "trials/lost", [0.0], status="diverged"))
    outcome = record.outcome
    assert outcome
    ranking.append(TrialResult("lost", {}, outcome, None, record))
    assert num_seeds_beaten(STUDY, ranking, ELBO_MAX) == 2
    assert num_seeds_beaten(STUDY, ranking, Objective(METRIC, "min")) == 1
    assert num_seeds_beaten(replace(STUDY, value=-9.0), ranking, ELBO_MAX) == 0
    assert num_seeds_beaten(replace(STUDY, value=None), ranking, ELBO_MAX) is None
    assert num_seeds_beaten(None, ranking, ELBO_MAX) is None


def test_an_interrupted_seed_is_not_compared(tmp_path: Path) -> None:
    write_run(tmp_path / "trials/seed-9", [-9.0], status="interrupted", params={"seed": 9})
    interrupted = rank_trials(read_trials(tmp_path), ELBO_MAX, ["seed"])
    assert interrupted[0].best and num_seeds_beaten(STUDY, interrupted, ELBO_MAX) is None
    ranking = seed_study(tmp_path, [-0.5, -2.0])
    assert len(ranking) == 3 and num_seeds_beaten(STUDY, ranking, ELBO_MAX) == 1
