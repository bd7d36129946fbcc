"""What may be compared with what."""

import sys
from dataclasses import replace
from pathlib import Path
from subprocess import run as run_process
from typing import Any

import pytest

import gen_models
from gen_models.core.errors import InputError
from pipelines.analysis.comparability import KEY, comparison_key, short
from pipelines.config.run import Train, defaults
from pipelines.config.serialization import with_settings
from pipelines.data import load
from pipelines.training.run_info import run_info
from pipelines.tuning.strategy.space import searched_space
from tune_spaces import space

DIGITS = load("digits", Path())


def key(family: str = "vae", digest: str = DIGITS.digest, **settings: Any) -> str:
    """Return the recorded key of a run with these settings."""
    run = with_settings(defaults(Train, family), settings)
    info = run_info(run, replace(DIGITS, digest=digest), kind="run", name="a", experiment="e")
    return info.tags[KEY]


@pytest.mark.parametrize(
    "settings",
    [
        {"family": "gan"},
        {"digest": "other"},
        {"binarise": True},
        {"metric": "val/elbo"},
        {"metric": "val/fd/pca-digits/2k"},
        {"model": {"likelihood": "gaussian"}},
        {"model": {"conditional": True}},
    ],
)
def test_what_measures_something_else_has_another_key(settings: dict[str, Any]) -> None:
    assert key(**settings) != key() and short(key(**settings)) != short(key())


def test_what_is_searched_does_not_change_the_key() -> None:
    model = {"latent_dim": 3, "kl_weight": 9.0, "hidden": (4,), "arch": "conv"}
    assert key(model=model, seed=9, epochs=3, batch_size=7, data="npz:/elsewhere.npz") == key()


def test_the_key_says_what_it_compares() -> None:
    assert key(metric="val/nll/iw8", digest="ab") == (
        "vae data=ab likelihood=bernoulli conditional=False binarise=False "
        "val/nll/iw8 of at most 1000 images"
    )
    assert len(short(key())) == 8 and short("") == ""


@pytest.mark.parametrize("family", gen_models.names())
def test_the_key_of_a_run_without_one_follows_from_its_params_and_tags(family: str) -> None:
    run = defaults(Train, family)
    info = run_info(run, DIGITS, kind="run", name="a", experiment="e")
    tags = {name: value for name, value in info.tags.items() if name != KEY}
    as_text = {name: str(value) for name, value in info.params.items()}  # as MLflow has them
    for params in (info.params, as_text):
        assert comparison_key(params, tags, run.metric) == info.tags[KEY]
    # Before a field was a field, it had one value.
    older = {
        name: v for name, v in as_text.items() if name not in ("binarise", "model.conditional")
    }
    assert comparison_key(older, tags, run.metric) == info.tags[KEY]
    assert comparison_key(as_text, info.tags, "val/fd/x/2k") != info.tags[KEY]


def test_runs_of_others_have_no_key() -> None:
    assert comparison_key({}, {}, "val/fd") == ""
    assert comparison_key({}, {"family": "not installed"}, "val/fd") == ""


@pytest.mark.parametrize("family", gen_models.names())
def test_what_changes_the_measure_is_a_field_with_its_default(family: str) -> None:
    config = gen_models.family(family).Config()
    for name, before in space(family).measures.items():
        assert getattr(config, name) == before


def test_a_search_cannot_vary_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray import tune

    from pipelines.config.search import Search
    from tune_spaces import vae

    varied = {**vae.SPACE.domains["model"], "likelihood": tune.choice(["bernoulli", "gaussian"])}
    wider = replace(vae.SPACE, domains={**vae.SPACE.domains, "model": varied})
    monkeypatch.setattr(vae, "SPACE", wider)
    run = defaults(Search, "vae")
    with pytest.raises(InputError, match="likelihood: expected one value, as by --model"):
        searched_space(run)
    left = [str(each) for each in run.searched if each.name != "model.likelihood"]
    assert searched_space(replace(run, space=("none", *left)))


def test_keys_are_made_without_torch() -> None:
    code = (
        "import sys; from pipelines.analysis.comparability import comparison_key; "
        "assert comparison_key({}, {'comparable': 'x', 'metric': 'm'}, 'm') == 'x'; "
        "sys.exit(bool({'torch', 'ray', 'mlflow'} & sys.modules.keys()))"
    )
    assert run_process([sys.executable, "-c", code], check=False).returncode == 0
