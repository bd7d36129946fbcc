"""What `benchmarks.many_trials` computes from its samples."""

import pytest

from benchmarks.many_trials import Sample, driver_costs


def samples(cost_after: float, step: int, trials: int) -> list[Sample]:
    """Return samples of a search whose trials take the driver 10 ms each, after the 600th
    `cost_after` ms, and 5 s at the start and at the end."""
    found = [Sample(0, 1.0, second) for second in (1.0, 5.0)]
    for ended in range(step, trials + 1, step):
        seconds = 5.0 + 0.01 * min(ended, 600) + cost_after / 1_000 * max(ended - 600, 0)
        found.append(Sample(ended, 1.0, seconds))
    return [*found, Sample(trials, 1.0, found[-1].driver_seconds + 5.0)]


def test_the_drivers_cost_of_a_trial_at_several_counts() -> None:
    costs = driver_costs(samples(20.0, step=7, trials=5_000), 5_000)
    assert costs["driver_ms_a_trial_200"] == pytest.approx(10.0)
    assert costs["driver_ms_a_trial_1000"] == pytest.approx((100 * 10 + 400 * 20) / 500, rel=0.01)
    assert costs["driver_ms_a_trial_5000"] == pytest.approx(20.0)
    assert costs["driver_cost_growth"] == pytest.approx(2.0)


def test_a_search_of_a_thousand_trials_has_two_counts() -> None:
    costs = driver_costs(samples(10.0, step=30, trials=1_000), 1_000)
    assert costs["driver_ms_a_trial_1000"] == pytest.approx(10.0)
    assert "driver_ms_a_trial_5000" not in costs
    assert costs["driver_cost_growth"] == pytest.approx(1.0)


def test_a_short_search_has_none() -> None:
    assert driver_costs(samples(10.0, step=10, trials=40), 40) == {}
    assert driver_costs([], 1_000) == {}
