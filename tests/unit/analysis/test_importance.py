"""The importance of settings: which one decides, and how sure that is."""

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from pipelines.analysis.importance import FEW_TRIALS, MIN_TRIALS, setting_importances
from pipelines.analysis.ranges import SettingRange

RANGES = {
    "dim": SettingRange(values=(4, 8, 16)),
    "hidden": SettingRange(values=("(256,)", "(512, 512)")),
    "lr": SettingRange(1e-4, 1e-2, log=True),
    "layers": SettingRange(1, 9, integer=True),
}


def trials(num: int, seed: int = 0) -> tuple[list[dict[str, Any]], list[float]]:
    """Trials of which the learning rate decides, and the dimension a little."""
    rng = np.random.default_rng(seed)
    configs, costs = [], []
    for _ in range(num):
        config: dict[str, Any] = {
            "dim": int(rng.choice([4, 8, 16])),
            "hidden": str(rng.choice(["(256,)", "(512, 512)"])),
            "lr": float(10 ** rng.uniform(-4, -2)),
            "layers": int(rng.integers(1, 10)),
        }
        costs.append(
            abs(np.log10(config["lr"]) + 3) + 0.2 * (config["dim"] == 4) + rng.normal(0, 0.02)
        )
        configs.append(config)
    return configs, costs


def test_the_setting_that_decides_is_the_most_important() -> None:
    found = setting_importances(*trials(200), RANGES)
    assert found and found.trials == 200 and found.top == 20 and not found.is_weak
    assert found.names[0] == "lr" and set(found.names) == set(RANGES)
    assert sum(each.share for each in found.settings) == pytest.approx(1.0)
    lr, *others = found.settings
    assert lr.low > max(other.high for other in others)
    assert all(0.0 <= each.low <= each.share <= each.high <= 1.0 for each in found.settings)
    assert found == setting_importances(*trials(200), RANGES)  # as the seed is


def test_it_is_optuna_s_own_number() -> None:
    """That of a study with these trials, computed in Optuna's documented way."""
    configs, costs = trials(100)
    kinds = {
        "dim": optuna.distributions.CategoricalDistribution([4, 8, 16]),
        "hidden": optuna.distributions.CategoricalDistribution(["[256]", "[512, 512]"]),
        "lr": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "layers": optuna.distributions.IntDistribution(1, 9),
    }
    texts = {"(256,)": "[256]", "(512, 512)": "[512, 512]"}
    study = optuna.create_study()
    for config, cost in zip(configs, costs, strict=True):
        params = config | {"hidden": texts[config["hidden"]]}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=kinds, value=cost))
    expected = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    found = setting_importances(configs, costs, RANGES)
    assert found and {each.name: each.share for each in found.settings} == pytest.approx(expected)


def test_fewer_trials_are_less_sure() -> None:
    few, many = (setting_importances(*trials(num), RANGES) for num in (20, 400))
    assert few and many and few.is_weak and few.trials < FEW_TRIALS
    assert few.top == 5  # PED-ANOVA wants five at least

    def width(found: Any) -> float:
        return sum(each.high - each.low for each in found.settings)

    assert width(few) > 2.0 * width(many)


def test_a_setting_that_not_every_trial_has() -> None:
    configs, costs = trials(100)
    for config in configs[::3]:
        del config["layers"]
    found = setting_importances(configs, costs, RANGES)
    assert found and found.names[0] == "lr" and "layers" in found.names


def test_nothing_is_computed_without_a_difference() -> None:
    configs, costs = trials(MIN_TRIALS)
    assert setting_importances(configs, costs, RANGES)
    assert setting_importances(configs[:-1], costs[:-1], RANGES) is None
    assert setting_importances(configs, [1.0] * MIN_TRIALS, RANGES) is None
    assert setting_importances(configs[:1] * MIN_TRIALS, costs, RANGES) is None
    same = [config | {"dim": 4} for config in configs]
    found = setting_importances(same, costs, RANGES)
    assert found and found.settings[-1].name == "dim" and found.settings[-1].share == 0.0


def test_optuna_logs_as_before() -> None:
    before = optuna.logging.get_verbosity()
    setting_importances(*trials(10), RANGES)
    assert optuna.logging.get_verbosity() == before
