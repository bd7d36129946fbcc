"""The space of a search as text: what is understood, what is refused, and what is written back."""

from typing import Any

import pytest
from ray import tune
from support.models import FAMILIES

import tune_spaces
from gen_models.core.config import flatten
from gen_models.core.errors import InputError
from pipelines.config.expressions import parse_expression
from pipelines.config.run import defaults
from pipelines.config.search import Search
from pipelines.config.serialization import make_config, with_settings
from pipelines.config.space import (
    Choice,
    Range,
    complete_space,
    domain_of_tune,
    own_space,
    parse_setting,
    parse_space,
    space_from_python,
)
from pipelines.tuning.strategy.space import as_tune

SETTINGS = [
    ("optim.lr=loguniform(1e-5, 1e-1)", Range(1e-5, 0.1, log=True)),
    ("model.kl_weight = tune.uniform(0, 4)", Range(0.0, 4.0)),
    ("model.kl_weight=quniform(0, 1, 0.25)", Range(0.0, 1.0, step=0.25)),
    ("model.latent-dim=randint(2, 9)", Range(2, 8, integer=True)),
    ("model.latent_dim=qrandint(4, 16, 4)", Range(4, 16, integer=True, step=4)),
    ("model.latent_dim=lograndint(1, 65)", Range(1, 64, integer=True, log=True)),
    ("model.latent_dim=choice([2, 4, 8])", Choice((2, 4, 8))),
    ("model.hidden=choice([[256], (512, 512)])", Choice(((256,), (512, 512)))),
    ("drop_last=choice([True, False])", Choice((True, False))),
    ("model.arch=choice(['mlp', \"conv\"])", Choice(("mlp", "conv"))),
]


@pytest.mark.parametrize(("text", "domain"), SETTINGS)
def test_a_domain_is_read_and_written_back(text: str, domain: Any) -> None:
    setting = parse_setting(text)
    assert setting.domain == domain and setting.condition is None
    assert parse_setting(str(setting)) == setting
    assert domain_of_tune("x", as_tune(Choice((1, 2)))) == Choice((1, 2))
    if isinstance(domain, Range):
        assert domain_of_tune("x", as_tune(domain)) == domain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim.lr", "space = 'optim.lr': expected NAME=DOMAIN, such as"),
        ("=choice([1])", "expected NAME=DOMAIN"),
        ("optim.lr=loguniform(1e-5", "space: optim.lr = 'loguniform(1e-5': cannot be parsed"),
        ("optim.lr=normal(0, 1)", "expected a domain of Ray Tune: one of uniform,"),
        ("optim.lr=__import__('os').system('x')", "expected a domain of Ray Tune"),
        ("optim.lr=uniform(lower=0, upper=1)", "with its arguments by position"),
        ("optim.lr=uniform(f(), 1)", "expected a number, text or a list of them"),
        ("optim.lr=uniform(1)", "expected 2 arguments"),
        ("optim.lr=uniform(1, 1)", "expected a lower bound below the upper one"),
        ("optim.lr=loguniform(0, 1)", "bounds above 0, because the scale is logarithmic"),
        ("optim.lr=uniform(0, 1e999)", "expected finite numbers"),
        (f"model.latent_dim=randint(1, {2**63})", "expected integers of at most 64 bits"),
        ("optim.lr=uniform('a', 1)", "expected finite numbers"),
        ("optim.lr=quniform(0, 1, 2)", "expected a step within the range"),
        ("model.latent_dim=randint(1.5, 4)", "expected integers"),
        ("model.latent_dim=randint(4, 4)", "expected a lower bound below the upper one"),
        ("model.latent_dim=choice([])", "expected a list of one value or more"),
        ("model.latent_dim=choice(4)", "expected a list of one value or more"),
        ("model.latent_dim=choice([4, 4])", "expected each value once"),
        ("model.latent_dim=choice([4]) if model.arch.upper() == 'A'", "is not understood"),
        ("model.latent_dim=choice([4]) if", "cannot be parsed"),
        ("x=choice([" + "[" * 500 + "]" * 500 + "])", "expected"),
        ("x=choice([1])" + " " * 2_000, "expected at most 1000 characters"),
    ],
)
def test_what_is_no_domain_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_setting(text)
    assert message in str(caught.value)


# -- spaces --------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_s_own_space_is_the_default(family: str) -> None:
    own = {setting.name: setting for setting in own_space(family)}
    assert set(own) == set(flatten(tune_spaces.space(family).domains))
    assert defaults(Search, family).searched.by_name == own
    assert defaults(Search, family).space[0] == "none"


def test_a_text_replaces_a_domain_or_adds_a_setting() -> None:
    run = make_config(Search, "vae", {"space": ["optim.lr=uniform(0, 1)", "seed=choice([1, 2])"]})
    assert run.searched.by_name["optim.lr"].domain == Range(0.0, 1.0)
    assert {"seed", "model.kl_weight"} < set(run.searched.by_name)
    again = with_settings(run, {})
    assert again == run and complete_space("vae", run.space) == run.space
    alone = make_config(Search, "vae", {"space": ["none", "seed=choice([1, 2])"]})
    assert set(alone.searched.by_name) == {"seed"}


def test_conditions_come_after_what_they_depend_on() -> None:
    texts = [
        "none",
        "model.hidden=choice([[8], [16]]) if model.arch == 'mlp' and model.latent_dim > 2",
        "model.latent_dim=choice([2, 4])",
        "model.arch=choice(['mlp', 'conv'])",
    ]
    space = parse_space(complete_space("vae", texts))
    assert [setting.name for setting in space][-1] == "model.hidden"
    assert space.is_conditional

    def active(**values: Any) -> set[str]:
        return {each.name for each in space.active({f"model.{k}": v for k, v in values.items()})}

    both = {"model.latent_dim", "model.arch"}
    assert active(arch="mlp", latent_dim=4) == {*both, "model.hidden"}
    assert active(arch="mlp", latent_dim=2) == active(arch="conv", latent_dim=4) == both


def test_from_python_a_space_is_a_mapping_of_domains_or_texts() -> None:
    given = {
        "optim": {"lr": tune.loguniform(1e-5, 1e-1)},
        "model.latent_dim": tune.choice([2, 4]),
        "batch_size": tune.grid_search([64, 128]),
        "model": {"hidden": "choice([[8], [16]]) if model.latent_dim == 2"},
    }
    texts = space_from_python(given)
    run = make_config(Search, "vae", {"space": texts})
    assert run.searched.by_name["optim.lr"].domain == Range(1e-5, 0.1, log=True)
    assert run.searched.by_name["batch_size"].domain == Choice((64, 128))
    assert run.searched.by_name["model.hidden"].condition is not None
    assert space_from_python(list(texts)) == texts


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (["optim.rl=uniform(0, 1)"], "space: optim.rl: no such setting (did you mean"),
        (["optim.rl=uniform(0, 1)"], "did you mean 'optim.lr'?"),
        (["epochs=choice([1, 2])"], "epochs is the budget of every trial"),
        (["data=choice(['digits', 'mnist'])"], "trials cannot differ in it: expected"),
        (["model.latent_dim=uniform(1, 2)"], "model.latent_dim = 1.0: expected an integer"),
        (["model.latent_dim=choice(['a'])"], "model.latent_dim = 'a': expected an integer"),
        (["model.arch=choice(['mlp', 'transformer'])"], "model.arch = 'transformer': expected"),
        (["optim.lr=uniform(0, 1)", "optim.lr=uniform(0, 2)"], "expected optim.lr once"),
        (
            ["none", "model.hidden=choice([[8]]) if model.arch == 'mlp'"],
            "expected a condition on a searched setting: no other",
        ),
        (
            [
                "none",
                "model.hidden=choice([[8]]) if model.arch == 'mlp'",
                "model.arch=choice(['mlp']) if model.hidden == [8]",
            ],
            "these conditions form a circle",
        ),
    ],
)
def test_a_wrong_space_is_refused(space: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        make_config(Search, "vae", {"space": space})
    assert message in str(caught.value)


@pytest.mark.parametrize("space", [5, {"optim": {"lr": 3}}, {"optim": {"lr": tune.randn(0, 1)}}])
def test_a_wrong_space_from_python_is_refused(space: Any) -> None:
    with pytest.raises(InputError, match="space"):
        space_from_python(space)


# -- what is required -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("model.latent_dim <= 64", True),
        ("model.latent_dim * 2 > 64 or not model.conditional", True),
        ("2 < model.latent_dim < 16", False),
        ("model.hidden == [512]", True),
        ("model.arch in ['conv', 'residual']", False),
        ("-optim.lr < 0 and 7 % 2 == 1", True),
    ],
)
def test_expressions(text: str, holds: bool) -> None:
    settings = {
        "model.latent_dim": 16,
        "model.conditional": False,
        "model.hidden": (512,),
        "model.arch": "mlp",
        "optim.lr": 1e-3,
    }
    assert parse_expression("require", text).holds(settings) is holds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model.latent_dims <= 64", "did you mean 'model.latent_dim'?"),
        ("model.latent_dim <", "cannot be parsed"),
        ("open('x')", "is not understood"),
        ("-" * 900 + "1", "expected at most 100 levels"),
        ("[x for x in model.hidden]", "is not understood"),
    ],
)
def test_a_wrong_requirement_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        make_config(Search, "vae", {"require": [text]})
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["'a' * 99999999999 == 'b'", "'%99999999999d' % 1 == 'b'"])
def test_arithmetic_is_of_numbers(text: str) -> None:
    """A product of text or lists could take all memory."""
    with pytest.raises(InputError, match="expected a number"):
        parse_expression("require", text).holds({})


def test_values_that_cannot_be_compared_are_named() -> None:
    with pytest.raises(InputError, match=r"not a condition on \{'model.arch': 'mlp'\}"):
        parse_expression("require", "model.arch < 3").holds({"model.arch": "mlp"})
