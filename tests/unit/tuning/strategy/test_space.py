"""The points of a space: the default, grids, conditions, what is required."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from ray import tune
from support.models import FAMILIES, SPEC

from gen_models.core.config import nest
from gen_models.core.errors import InputError
from pipelines.config.run import defaults
from pipelines.config.search import Search, SeedStudy
from pipelines.config.serialization import make_config, with_settings
from pipelines.config.space import Choice, Range, seed_space
from pipelines.tuning.strategy.space import (
    as_tune,
    continuous,
    default_point,
    grid_points,
    grid_size,
    is_allowed,
    largest,
    mutations,
    refusal,
    require_satisfiable,
    searched_space,
    settings_kept_apart,
    widest_settings,
)

STUDY = SeedStudy(run="r", name="n", search_id="", data_digest="d", value=1.0)
CONDITIONAL = (
    "none",
    "model.arch=choice(['mlp', 'conv'])",
    "model.hidden=choice([[256], [512]]) if model.arch == 'mlp'",
)


def make_run(*space: str, **settings: Any) -> Search:
    return replace(defaults(Search, "vae"), space=space, **settings)


# -- what is searched -----------------------------------------------------------------------------
def test_an_empty_space_is_refused() -> None:
    with pytest.raises(InputError, match="every setting of the space was given: `genpipe train`"):
        searched_space(make_run("none"))


@pytest.mark.parametrize("scheduler", ["pbt", "pb2"])
def test_population_based_training_needs_a_continuous_setting(scheduler: Any) -> None:
    run = make_run("none", "model.latent_dim=choice([2, 4])", scheduler=scheduler)
    with pytest.raises(InputError, match=f"scheduler = '{scheduler}': expected a continuous"):
        searched_space(run)
    assert searched_space(make_run(scheduler=scheduler))


def test_a_value_that_the_config_refuses_is_named() -> None:
    with pytest.raises(InputError, match="latent_dim = 0: expected an integer of at least 1"):
        searched_space(make_run("model.latent_dim=randint(0, 4)"))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_default_point_has_the_config_s_values(family: str) -> None:
    run = defaults(Search, family)
    point = default_point(run, run.searched)
    assert point.keys() == run.searched.by_name.keys()
    assert with_settings(run, nest(point)) == run
    assert refusal(run, point) is None
    json.dumps(point)


def test_a_list_is_text_within_tune() -> None:
    """Tune looks for domains inside tuples, and Optuna refuses them."""
    run = make_run("none", "model.hidden=choice([[32], [16, 16]])")
    assert default_point(run, run.searched) == {"model.hidden": "[512]"}
    assert as_tune(run.searched[0].domain).categories == ["[32]", "[16, 16]"]
    assert with_settings(run, {"model": {"hidden": "[16, 16]"}}).model.hidden == (16, 16)


@pytest.mark.parametrize(
    ("point", "reason"),
    [
        ({"model.latent_dim": 5}, "model.latent_dim = 5 does not lie in choice"),
        ({"optim.lr": 5.0}, "optim.lr = 5.0 does not lie in loguniform"),
        ({"seed": 5}, "seed is not searched: expected settings of model.latent_dim"),
        ({"optim.lr": 1e-3, "model.latent_dim": 4}, None),
    ],
)
def test_points_outside_the_space(point: dict[str, Any], reason: str | None) -> None:
    found = refusal(make_run(), point)
    assert found is reason or (found and reason and found.startswith(reason))


# -- grids --------------------------------------------------------------------------------------
def values(points: Sequence[dict[str, Any]], name: str) -> list[Any]:
    return list(dict.fromkeys(point[name] for point in points if name in point))


def test_a_grid_has_every_choice_and_evenly_spaced_numbers() -> None:
    run = make_run(
        "none",
        "model.arch=choice(['mlp', 'conv'])",
        "model.kl_weight=loguniform(0.01, 1.0)",
        "model.free_bits=uniform(0.0, 1.0)",
        "model.latent_dim=randint(2, 9)",
        grid_points=3,
    )
    points = grid_points(run)
    assert values(points, "model.arch") == ["mlp", "conv"]
    assert values(points, "model.kl_weight") == pytest.approx([0.01, 0.1, 1.0])
    assert values(points, "model.free_bits") == pytest.approx([0.0, 0.5, 1.0])
    assert values(points, "model.latent_dim") == [2, 5, 8]  # randint leaves out its upper bound
    assert grid_size(run) == len(points) == 2 * 3 * 3 * 3


def test_integers_that_coincide_are_one_point() -> None:
    run = make_run("none", "model.latent_dim=randint(2, 4)", grid_points=5)
    assert grid_points(run) == [{"model.latent_dim": 2}, {"model.latent_dim": 3}]
    stepped = make_run("none", "model.latent_dim=qrandint(4, 16, 4)", grid_points=9)
    assert values(grid_points(stepped), "model.latent_dim") == [4, 8, 12, 16]


@pytest.mark.parametrize(("points", "size"), [(1, 6), (2, 6 * 2 * 2), (4, 6 * 4 * 4)])
def test_the_size_of_a_grid(points: int, size: int) -> None:
    assert grid_size(make_run(grid_points=points)) == size


def test_a_seed_study_is_a_grid_of_the_seeds_after_the_run_s_own() -> None:
    run = make_run(*seed_space(7, 3), seed=7, trials=3, seed_study=STUDY, searcher="grid")
    assert grid_points(run) == [{"seed": 8}, {"seed": 9}, {"seed": 10}]


def test_a_grid_has_conditional_settings_where_their_condition_holds() -> None:
    points = grid_points(make_run(*CONDITIONAL))
    hidden = [{"model.arch": "mlp", "model.hidden": text} for text in ("[256]", "[512]")]
    assert points == [*hidden, {"model.arch": "conv"}]


def test_a_grid_leaves_out_what_is_not_allowed() -> None:
    run = make_run(
        "none", "model.latent_dim=choice([4, 8, 16])", require=("model.latent_dim < 16",)
    )
    assert values(grid_points(run), "model.latent_dim") == [4, 8]
    assert grid_size(run) == 2


def test_what_is_required_is_about_the_whole_config() -> None:
    run = make_run(require=("model.latent_dim * batch_size <= 1024",), batch_size=128)
    assert is_allowed(run, run.searched, {"model.latent_dim": 8})
    assert not is_allowed(run, run.searched, {"model.latent_dim": 12})


# -- structure ----------------------------------------------------------------------------------
def test_what_may_change_within_a_trial_is_continuous() -> None:
    run = make_run("model.free_bits=uniform(0, 1)", "batch_size=choice([64])")
    assert set(continuous(run.searched)) == {"model.kl_weight", "optim.lr", "model.free_bits"}
    assert isinstance(mutations(run.searched)["optim.lr"], type(tune.uniform(0, 1)))
    assert not continuous(make_run("none", "model.latent_dim=randint(4, 8)").searched)


def test_the_largest_config_is_known_before_a_trial_runs() -> None:
    run = make_run("model.latent_dim=randint(2, 41)", "batch_size=choice([32, 256, 64])")
    assert widest_settings(run, SPEC) == {"latent_dim": 40}
    assert largest(run).batch_size == 256
    assert isinstance(run.searched.by_name["model.latent_dim"].domain, Range)
    assert isinstance(run.searched.by_name["batch_size"].domain, Choice)


@pytest.mark.parametrize(
    ("settings", "searched", "apart"),
    [
        # Widths are padded to the largest trial's.
        ({}, ["model.latent_dim", "model.kl_weight", "optim.lr"], []),
        ({}, ["model.arch", "optim.lr"], ["model.arch"]),
        ({}, ["model.hidden", "model.latent_dim"], ["model.hidden"]),
        # Free bits are given to each dimension, those of the padding too.
        ({"free_bits": 0.1}, ["model.latent_dim"], ["model.latent_dim"]),
        ({}, ["seed", "batch_size"], ["batch_size"]),
    ],
)
def test_settings_in_which_trials_that_are_trained_as_one_agree(
    settings: dict[str, Any], searched: list[str], apart: list[str]
) -> None:
    run = with_settings(make_run(), {"model": settings})
    assert settings_kept_apart(run, SPEC, searched) == apart


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"require": ["model.latent_dim < 0"]}, "none of 1,000 does"),
        (
            {"require": ["model.latent_dim < 'a'"]},
            "none of 1,000 does (model.latent_dim < 'a': not",
        ),
        (
            {"space": [*CONDITIONAL[:2], "optim.lr=uniform(0, 1) if model.arch < 5"]},
            "model.arch < 5",
        ),
    ],
)
def test_what_no_point_can_satisfy_is_refused(settings: dict[str, Any], message: str) -> None:
    run = make_config(Search, "vae", settings)
    with pytest.raises(InputError) as caught:
        require_satisfiable(run, run.searched)
    assert message in str(caught.value)


def test_a_point_at_which_a_condition_fails_is_drawn_again() -> None:
    run = make_config(Search, "vae", {"require": ["1 / (model.latent_dim - 8) < 1"]})
    require_satisfiable(run, run.searched)
    assert not is_allowed(run, run.searched, {"model.latent_dim": 8})
    assert is_allowed(run, run.searched, {"model.latent_dim": 16})
