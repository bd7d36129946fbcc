"""Spaces fit their families: searched fields exist, samples are valid, defaults lie within."""

import pkgutil
import random
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from support.models import FAMILIES, SPEC

import gen_models
import tune_spaces
from gen_models.core.config import flatten, nest
from gen_models.core.errors import InputError
from pipelines.config.run import defaults
from pipelines.config.search import Search
from pipelines.config.serialization import from_dict, to_dict, with_settings
from pipelines.config.space import own_space
from pipelines.evaluation.metric_names import matching
from pipelines.evaluation.validation import metric_names
from pipelines.tuning.strategy.space import as_tune, default_point

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_space_searches_fields_of_its_family(family: str) -> None:
    module, found = gen_models.family(family), tune_spaces.space(family)
    fields = flatten({"model": asdict(module.Config()), "optim": asdict(module.Optim())})
    assert set(flatten(found.domains)) <= set(fields)
    assert "model.latent_dim" in flatten(found.domains)
    rates = {name for name in fields if name.startswith("optim.") and name.endswith("lr")}
    assert rates <= set(flatten(found.domains))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_hundred_samples_are_valid_configs(family: str) -> None:
    random.seed(0)
    np.random.seed(0)
    base = defaults(Search, family)
    for _ in range(100):
        point = {each.name: as_tune(each.domain).sample() for each in own_space(family)}
        run = with_settings(base, nest(point))
        assert from_dict(Search, to_dict(run)) == run


@pytest.mark.parametrize("family", FAMILIES)
def test_the_defaults_lie_within_the_domains(family: str) -> None:
    base = flatten(to_dict(defaults(Search, family)))
    for setting in own_space(family):
        assert setting.domain.has(base[setting.name]), setting


@pytest.mark.parametrize("family", FAMILIES)
def test_the_metric_is_reported_and_the_grace_period_fits(family: str) -> None:
    module, found = gen_models.family(family), tune_spaces.space(family)
    names = metric_names(module.Model(module.Config(), SPEC), "lenet-digits")
    assert len(matching(found.metric, names)) == 1
    assert 1 <= found.grace_period <= found.epochs


def test_a_setting_of_the_run_s_own_is_searched_like_a_model_s() -> None:
    base = defaults(Search, "vae")
    texts = ("none", "seed=choice([1, 2])", "model.latent_dim=choice([4, 16])")
    searched = replace(base, space=texts).searched
    assert default_point(base, searched) == {"seed": 0, "model.latent_dim": 16}
    run = with_settings(base, {"seed": 2, "model": {"latent_dim": 4}})
    assert (run.seed, run.model.latent_dim) == (2, 4)
    assert replace(run, seed=0, model=base.model) == base
    with pytest.raises(InputError, match="sede = 2: expected one of"):
        with_settings(base, {"sede": 2})


def test_families_and_spaces_have_the_same_names() -> None:
    assert sorted(m.name for m in pkgutil.iter_modules(tune_spaces.__path__)) == FAMILIES


def test_spaces_import_neither_torch_nor_ray() -> None:
    program = (
        "import sys, gen_models, tune_spaces\n"
        "for name in gen_models.names(): tune_spaces.space(name)\n"
        "assert not {'torch', 'ray'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_an_unknown_family_has_no_space() -> None:
    with pytest.raises(InputError, match=r"unknown family 'vea' \(did you mean 'vae'"):
        tune_spaces.space("vea")
