"""Optuna over several objectives: it goes on from what was saved, and it finds a known front."""

from pathlib import Path
from typing import Any

import numpy as np
from support.journals import ELBO_MAX, FD_MIN

from pipelines.config.run import defaults
from pipelines.config.search import Search, with_objectives
from pipelines.config.serialization import with_settings
from pipelines.tuning.searchers import ParetoSearch, make_searcher
from pipelines.tuning.space import domains


def make() -> ParetoSearch:
    run = with_settings(defaults(Search, "vae"), {"seed": 3})
    run = with_objectives(run, [ELBO_MAX, FD_MIN])
    searcher = make_searcher(run, domains(run))
    assert isinstance(searcher, ParetoSearch)
    assert searcher.set_search_properties(None, None, domains(run))
    return searcher


def result(elbo: float, fd: float) -> dict[str, Any]:
    return {ELBO_MAX.metric: elbo, FD_MIN.metric: fd, "diverged": 0, "training_iteration": 1}


def test_the_directions_are_those_of_the_objectives() -> None:
    assert [d.name for d in make()._ot_study.directions] == ["MAXIMIZE", "MINIMIZE"]


def test_it_goes_on_from_what_was_saved(tmp_path: Path) -> None:
    one, other = make(), make()
    one.suggest("a")
    one.on_trial_result("a", result(-3.0, 4.0))
    one.save(str(tmp_path / "state"))
    other.restore(str(tmp_path / "state"))
    other.on_trial_complete("a", result(-4.0, 2.0))
    assert other._ot_study.trials[0].values == [-3.0, 4.0]


def test_the_sampler_comes_near_to_a_known_front() -> None:
    """Of f = (lr, distance of lr and of the KL weight from 1), trials end up near weight 1."""
    searcher = make()
    distances = []
    for index in range(60):
        config = searcher.suggest(str(index))
        assert config
        weight, rate = config["model"]["kl_weight"], config["optim"]["lr"]
        off = abs(np.log(weight))
        searcher.on_trial_complete(str(index), result(-100 * rate - off, off - 100 * rate))
        distances.append(off)
    assert np.mean(distances[30:]) < 0.6 * np.mean(distances[1:16])
