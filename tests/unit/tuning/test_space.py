"""The space of a search: what is searched, the default point, grids."""

import json
from dataclasses import replace
from typing import Any

import pytest
from ray import tune
from support.models import FAMILIES, SPEC

import tune_spaces
from gen_models.core.config import flatten
from gen_models.core.errors import InputError
from pipelines.config.run import defaults
from pipelines.config.search import Search, SeedStudy
from pipelines.config.serialization import with_settings
from pipelines.tuning.space import (
    continuous_domains,
    default_point,
    domains,
    grid,
    grid_size,
    settings_kept_apart,
)
from tune_spaces import vae

STUDY = SeedStudy(run="r", name="n", search_id="", data_digest="d", value=1.0)


def make_run(**settings: Any) -> Search:
    return replace(defaults(Search, "vae"), **settings)


def set_space(monkeypatch: pytest.MonkeyPatch, **searched: Any) -> None:
    monkeypatch.setattr(vae, "SPACE", replace(vae.SPACE, domains=searched))


# -- what is searched -----------------------------------------------------------------------------
@pytest.mark.parametrize("family", FAMILIES)
def test_without_given_settings_the_whole_space_is_searched(family: str) -> None:
    space = tune_spaces.space(family).domains
    assert set(flatten(domains(defaults(Search, family)))) == set(flatten(space))


def test_given_settings_are_not_searched() -> None:
    run = make_run(fixed=("model.latent_dim", "optim.lr"))
    assert set(flatten(domains(run))) == {"model.kl_weight"}
    assert set(domains(run)) == {"model"}  # no empty part


def test_a_space_whose_every_setting_is_given_is_refused() -> None:
    fixed = tuple(flatten(tune_spaces.space("vae").domains))
    with pytest.raises(InputError, match="every setting of the space was given: `genpipe train`"):
        domains(make_run(fixed=fixed))


def test_population_based_training_needs_a_continuous_setting() -> None:
    pbt = {"scheduler": "pbt", "searcher": "random"}
    assert domains(make_run(**pbt, fixed=("optim.lr",)))  # kl_weight is left
    with pytest.raises(InputError, match="scheduler = 'pbt': expected a continuous setting"):
        domains(make_run(**pbt, fixed=("optim.lr", "model.kl_weight")))


def test_a_seed_study_searches_the_seeds_after_the_studied_run_s_own() -> None:
    run = make_run(seed=7, trials=3, seed_study=STUDY, searcher="grid")
    (domain,) = domains(run).values()
    assert domain.categories == [8, 9, 10]
    assert grid(run, domains(run)) == {"seed": {"grid_search": [8, 9, 10]}}
    assert grid_size(run) == 3


def test_a_choice_among_tuples_is_one_among_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tune looks for domains inside tuples, and Optuna refuses them."""
    set_space(monkeypatch, model={"hidden": tune.choice([(32,), (16, 16)])})
    run = make_run()
    searched = domains(run)
    assert searched["model"]["hidden"].categories == ["[32]", "[16, 16]"]
    assert default_point(run, searched) == {"model": {"hidden": "[512]"}}
    assert with_settings(run, {"model": {"hidden": "[16, 16]"}}).model.hidden == (16, 16)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_default_point_has_the_space_s_shape_and_the_config_s_values(family: str) -> None:
    run = defaults(Search, family)
    searched = domains(run)
    point = default_point(run, searched)
    assert flatten(point).keys() == flatten(searched).keys()
    assert with_settings(run, point) == run
    json.dumps(point)


# -- grids --------------------------------------------------------------------------------------
def test_a_grid_has_every_choice_and_evenly_spaced_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space = {
        "model": {
            "arch": tune.choice(["mlp", "conv"]),
            "kl_weight": tune.loguniform(0.01, 1.0),
            "free_bits": tune.uniform(0.0, 1.0),
            "latent_dim": tune.randint(2, 9),
        }
    }
    set_space(monkeypatch, **space)
    run = make_run(grid_points=3)
    points = {name: leaf["grid_search"] for name, leaf in grid(run, domains(run))["model"].items()}
    assert points["arch"] == ["mlp", "conv"]
    assert points["kl_weight"] == pytest.approx([0.01, 0.1, 1.0])
    assert points["free_bits"] == pytest.approx([0.0, 0.5, 1.0])
    # Tune's upper bound of integers is exclusive.
    assert points["latent_dim"][0] == 2 and points["latent_dim"][-1] == 8
    assert grid_size(run) == 2 * 3 * 3 * len(points["latent_dim"])


def test_integers_that_coincide_are_one_point(monkeypatch: pytest.MonkeyPatch) -> None:
    set_space(monkeypatch, model={"latent_dim": tune.randint(2, 4)})
    run = make_run(grid_points=5)
    assert grid(run, domains(run)) == {"model": {"latent_dim": {"grid_search": [2, 3]}}}
    assert grid_size(run) == 2


@pytest.mark.parametrize(("points", "size"), [(1, 6), (2, 6 * 2 * 2), (4, 6 * 4 * 4)])
def test_the_size_of_a_grid(points: int, size: int) -> None:
    run = make_run(grid_points=points)
    assert grid_size(run) == size
    assert grid_size(replace(run, fixed=("model.latent_dim",))) == size // 6


def test_a_domain_without_a_grid_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    set_space(monkeypatch, model={"kl_weight": tune.sample_from(lambda spec: 1.0)})
    with pytest.raises(InputError, match="searcher = 'grid': expected a space without"):
        grid_size(make_run())


# -- structure ----------------------------------------------------------------------------------
def test_what_may_change_within_a_trial_is_continuous() -> None:
    searched = domains(make_run())
    assert set(flatten(continuous_domains(searched))) == {"model.kl_weight", "optim.lr"}
    assert continuous_domains({"model": {"latent_dim": tune.choice([4, 8])}}) == {}
    assert continuous_domains({"model": {"latent_dim": tune.randint(4, 8)}}) == {}


@pytest.mark.parametrize(
    ("settings", "searched", "apart"),
    [
        # Widths are padded to the largest trial's.
        ({}, ["model.latent_dim", "model.kl_weight", "optim.lr"], []),
        ({}, ["model.arch", "optim.lr"], ["model.arch"]),
        ({}, ["model.hidden", "model.latent_dim"], ["model.hidden"]),
        # Free bits are given to each dimension, those of the padding too.
        ({"free_bits": 0.1}, ["model.latent_dim"], ["model.latent_dim"]),
        ({}, ["seed"], []),
    ],
)
def test_settings_in_which_trials_that_are_trained_as_one_agree(
    settings: dict[str, Any], searched: list[str], apart: list[str]
) -> None:
    run = with_settings(make_run(), {"model": settings})
    assert settings_kept_apart(run, SPEC, searched) == apart
