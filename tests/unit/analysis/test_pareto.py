"""The Pareto front of trials with several objectives."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support.journals import ELBO_MAX, FD, FD_MIN, METRIC

from pipelines.analysis.best_epoch import BestEpoch
from pipelines.analysis.pareto import non_dominated, pareto_front
from pipelines.analysis.ranking import TrialResult
from pipelines.config.objectives import Objective
from pipelines.store.journal import Outcome
from pipelines.store.layout import RunFolder
from pipelines.store.scan import RunRecord

OBJECTIVES = [ELBO_MAX, FD_MIN]


def dominates(point: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether `point` is nowhere worse than `other`, and somewhere better; small is
    good."""
    pairs = list(zip(point, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


@pytest.mark.parametrize("num_objectives", [1, 2, 3, 4])
def test_the_front_is_what_brute_force_finds(num_objectives: int) -> None:
    rng = np.random.default_rng(num_objectives)
    for num in (1, 2, 7, 100):
        for costs in (
            rng.normal(size=(num, num_objectives)),
            rng.integers(0, 4, (num, num_objectives)),
        ):
            points = costs.astype(float).tolist()
            expected = [not any(dominates(b, a) for b in points) for a in points]
            assert non_dominated(np.array(points)) == expected
            assert any(expected)


def trial(name: str, **metrics: float) -> TrialResult:
    values = {{"elbo": METRIC, "fd": FD}[key]: value for key, value in metrics.items()}
    best = BestEpoch(1, values[METRIC], Path(name), values) if values else None
    outcome = Outcome("completed" if values else "failed", 1)
    record = RunRecord(RunFolder(Path(name)), None, outcome, {}, ())
    return TrialResult(name, {}, outcome, best, record)


def test_equal_trials_share_the_front_and_those_without_a_value_are_not_on_it() -> None:
    trials = [
        trial("dead"),
        trial("near", elbo=-3.0, fd=1.0),
        trial("half", elbo=0.0),
        trial("twin", elbo=-2.0, fd=2.0),
        trial("beaten", elbo=-2.0, fd=2.5),
        trial("best", elbo=-1.0, fd=3.0),
        trial("also", elbo=-2.0, fd=2.0),
    ]
    front = [result.trial_id for result in pareto_front(trials, OBJECTIVES)]
    assert front == ["best", "twin", "also", "near"]
    assert pareto_front(trials[:1], OBJECTIVES) == [] == pareto_front([], OBJECTIVES)
    up = [ELBO_MAX, Objective(FD, "max")]
    assert [result.trial_id for result in pareto_front(trials, up)] == ["best"]
