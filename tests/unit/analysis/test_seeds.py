"""Statistics of a metric over seeds."""

import pytest
from support.journals import ELBO_MAX, FD_MIN

from pipelines.analysis.seeds import SeedStatistics


def statistics(*values: float | None) -> SeedStatistics:
    found = SeedStatistics.of(values, ELBO_MAX)
    assert found
    return found


def test_statistics_of_known_values() -> None:
    found = statistics(2.0, 4.0, None, 4.0, 6.0)
    assert (found.seeds, found.lost) == (4, 1)
    assert (found.mean, found.median, found.best, found.worst) == (4.0, 4.0, 6.0, 2.0)
    assert found.std == pytest.approx((8 / 3) ** 0.5)
    assert found.sem == pytest.approx((8 / 3) ** 0.5 / 2)
    small = SeedStatistics.of([2.0, 6.0], FD_MIN)
    assert small and (small.best, small.worst) == (2.0, 6.0)


@pytest.mark.parametrize("values", [[], [1.0], [None, None], [None, 1.0]])
def test_fewer_than_two_values_have_none(values: list[float | None]) -> None:
    assert SeedStatistics.of(values, ELBO_MAX) is None


def test_statistics_are_read_back_from_mlflow_s_metrics() -> None:
    found = statistics(2.0, 4.0, None)
    summary = found.summary()
    assert set(summary) == {
        f"confirm/{name}"
        for name in ("seeds", "lost", "mean", "std", "sem", "median", "best", "worst")
    }
    assert SeedStatistics.from_summary({**summary, "best/val/elbo": 1.0}) == found
    assert SeedStatistics.from_summary({"best/val/elbo": 1.0}) is None


def test_configs_are_sorted_by_lost_seeds_then_by_mean() -> None:
    good, poor = statistics(-1.0, -2.0), statistics(-3.0, -4.0)
    lossy = statistics(0.0, 0.0, None)
    assert sorted([lossy, poor, good], key=lambda s: s.key(ELBO_MAX)) == [good, poor, lossy]
    assert sorted([lossy, poor, good], key=lambda s: s.key(FD_MIN)) == [poor, good, lossy]
