"""Configs as JSON: what is written is read back, and what is unknown or damaged is named."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gen_models.core.config import flatten
from gen_models.core.errors import InputError
from pipelines.config.command import rerun_command
from pipelines.config.run import Run, Train, as_train, defaults
from pipelines.config.search import Search, SeedStudy
from pipelines.config.serialization import (
    FORMAT,
    HERE,
    WHERE,
    WHICH,
    config_from_params,
    config_from_python,
    dump_config,
    from_dict,
    load_config,
    make_config,
    result_settings,
    to_dict,
    train_content,
    with_settings,
)
from pipelines.config.space import seed_space

STUDY = SeedStudy(run="abc", name="a", search_id="s", data_digest="d", value=None)


@pytest.fixture(params=["train", "search", "study", "objectives", "defaults"])
def run(request: pytest.FixtureRequest, train: Train, search: Search) -> Run:
    """A run, a search, a seed study, a search for a Pareto front, and a run of the defaults."""
    objectives = replace(
        search, scheduler="fifo", confirm=0, further=(("val/recall", "max"), ("val/kl", "max"))
    )
    study = replace(search, seed_study=STUDY, space=seed_space(0, 3))
    plain = defaults(Train, train.family)
    runs: dict[str, Run] = {
        "train": train,
        "search": search,
        "study": study,
        "objectives": objectives,
        "defaults": plain,
    }
    return runs[request.param]


# -- config.json ---------------------------------------------------------------------------------
def test_a_config_is_read_back_as_it_was_written(run: Run) -> None:
    text = dump_config(run)
    again = load_config(text, "config.json")
    assert again == run and type(again) is type(run)
    assert load_config(text.encode(), "config.json") == run
    content = json.loads(text)
    assert content["format"] == FORMAT == 2 and content["config"]["family"] == run.family
    assert content["command"] == ("search" if isinstance(run, Search) else "train")


def test_a_config_is_sent_as_a_dictionary(run: Run) -> None:
    assert from_dict(type(run), json.loads(json.dumps(to_dict(run)))) == run


def _at(content: dict[str, Any], path: str) -> dict[str, Any]:
    for name in path.split(".") if path else []:
        content = content[name]
    return content


@pytest.mark.parametrize("path", ["", "model", "optim"])
def test_an_unknown_field_is_named(path: str, run: Run) -> None:
    content = json.loads(dump_config(run))
    _at(content["config"], path)["colour"] = 3
    with pytest.raises(InputError, match=r"^x/config.json: .*colour = 3: expected one of .*'?\w"):
        load_config(json.dumps(content), "x/config.json")


@pytest.mark.parametrize(("config", "path"), [("gan", "optim.generator"), ("study", "seed_study")])
def test_an_unknown_field_is_named_at_every_depth(config: str, path: str) -> None:
    family = "gan" if config == "gan" else "vae"
    content = json.loads(dump_config(replace(defaults(Search, family), seed_study=STUDY)))
    _at(content["config"], path)["colour"] = 3
    with pytest.raises(InputError, match="colour = 3"):
        load_config(json.dumps(content), "config.json")


@pytest.mark.parametrize("number", [-1, "1", None, 0.5, 1.0, True])
def test_a_format_that_is_no_number_of_one_is_refused(number: Any) -> None:
    text = json.dumps({**json.loads(dump_config(defaults(Train, "vae"))), "format": number})
    with pytest.raises(InputError) as caught:
        load_config(text, "a/config.json")
    assert str(caught.value) == (
        f"a/config.json: format = {number!r}: expected an integer from 0 to 2"
    )


@pytest.mark.parametrize("number", [3, 99])
def test_a_newer_format_is_refused(number: Any) -> None:
    text = json.dumps({**json.loads(dump_config(defaults(Train, "vae"))), "format": number})
    with pytest.raises(InputError) as caught:
        load_config(text, "a/config.json")
    assert str(caught.value) == (
        f"a/config.json: format = {number!r}: expected at most 2; the file was written by a newer "
        "version of genpipe: install that one"
    )


@pytest.mark.parametrize("text", ["", "{", '{"format": 1', "no", "\x00\x01"])
def test_a_file_that_is_no_json_is_damaged(text: str) -> None:
    with pytest.raises(InputError, match=r"^a/config\.json: damaged, no JSON \("):
        load_config(text, "a/config.json")


@pytest.mark.parametrize(
    "content",
    [
        [],
        3,
        {"format": 1},
        {"format": 2, "command": "sweep", "config": {}},
        {"format": 1, "command": "train", "config": 5},
        {"format": 2, "command": "train", "config": {"family": "vae"}},
    ],
)
def test_json_that_is_no_config_is_damaged(content: Any) -> None:
    with pytest.raises(InputError, match=r"^a/config\.json: damaged"):
        load_config(json.dumps(content), "a/config.json")


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("optim.lr", "abc", "a number"),
        ("model.hidden", "x", "a list, each an integer"),
        ("searcher", "foo", "one of tpe, random, grid, qmc, gp, cmaes, nsga2, nsga3 or nothing"),
        ("trials", 2.5, "an integer"),
        ("drop_last", "no", "True or False"),
    ],
)
def test_a_value_of_another_type_in_the_file_is_named(
    path: str, value: Any, expected: str
) -> None:
    content = json.loads(dump_config(defaults(Search, "vae")))
    *parents, name = path.split(".")
    _at(content["config"], ".".join(parents))[name] = value
    with pytest.raises(InputError) as caught:
        load_config(json.dumps(content), "a/config.json")
    assert str(caught.value) == f"a/config.json: {path} = {value!r}: expected {expected}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": "5"}, "epochs = '5': expected an integer"),
        ({"epochs": 1.5}, "epochs = 1.5: expected an integer"),
        ({"seed": True}, "seed = True: expected an integer"),
        ({"model": {"hidden": 3}}, "model.hidden = 3: expected a list, each an integer"),
        ({"model": {"hidden": ["a"]}}, "model.hidden = 'a': expected an integer"),
        ({"model": {"arch": "foo"}}, "model.arch = 'foo': expected one of mlp, conv"),
        ({"model": 5}, "model = 5: expected a mapping"),
        ({"optim": {"lr": None}}, "optim.lr = None: expected a number"),
        ({"optim": {"betas": [0.9]}}, "optim.betas = [0.9]: expected 2 values"),
        ({"data": 5}, "data = 5: expected text"),
        ({"store": 5}, "store = 5: expected a path"),
        ({"precision": "fp16"}, "precision = 'fp16': expected one of auto, fp32, bf16"),
        (
            {"scheduler": "foo"},
            "scheduler = 'foo': expected one of asha, hyperband, median, pbt, pb2, fifo",
        ),
        ({"fuse": 1.5}, "fuse = 1.5: expected one of auto, off or an integer"),
        ({"fuse": True}, "fuse = True: expected one of auto, off or an integer"),
        ({"fixed": ("seed",)}, "fixed = ('seed',): expected one of address"),
        ({"dry_run": True}, "dry_run = True: expected one of address"),
    ],
)
def test_wrong_values_from_python_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        config_from_python(Search, "vae", settings)
    assert str(caught.value).startswith(message)


def test_numbers_of_other_libraries_are_accepted() -> None:
    settings = {"seed": np.int64(3), "optim": {"lr": np.float32(0.5)}, "model": {"kl_weight": 2}}
    run = config_from_python(Train, "vae", settings)
    assert (run.seed, run.optim.lr, run.model.kl_weight) == (3, 0.5, 2.0)
    assert {type(run.seed), type(run.optim.lr), type(run.model.kl_weight)} == {int, float}


def test_a_wrong_value_is_named_with_the_file() -> None:
    content = json.loads(dump_config(defaults(Train, "vae")))
    content["config"]["epochs"] = 0
    with pytest.raises(InputError) as caught:
        load_config(json.dumps(content), "a/config.json")
    assert str(caught.value) == "a/config.json: epochs = 0: expected an integer of at least 1"


def test_format_0_is_the_bare_config_of_a_search(search: Search) -> None:
    """As `search.json` was written, with the seed study under the name `confirms`."""
    content = _of_format_1(search)
    del content["seed_study"]
    assert load_config(json.dumps({**content, "confirms": None}), "search.json") == search
    study = {**vars(STUDY), "value": -1.5}
    migrated = load_config(json.dumps({**content, "confirms": study}), "search.json")
    assert migrated == replace(
        search, seed_study=replace(STUDY, value=-1.5), space=seed_space(search.seed, search.trials)
    )


def _of_format_1(search: Search, *fixed: str) -> dict[str, Any]:
    """Return a search's config as format 1 had it: with the settings that are not searched."""
    content: dict[str, Any] = json.loads(json.dumps(to_dict(search)))
    del content["space"], content["require"]
    return {**content, "fixed": list(fixed)}


def test_format_1_named_the_settings_that_are_not_searched() -> None:
    search = defaults(Search, "vae")
    config = _of_format_1(search, "optim.lr")
    text = json.dumps({"format": 1, "command": "search", "config": config})
    migrated = load_config(text, "config.json")
    assert isinstance(migrated, Search)
    left = [str(each) for each in search.searched if each.name != "optim.lr"]
    assert migrated == replace(search, space=("none", *left))
    run = {"format": 1, "command": "train", "config": to_dict(defaults(Train, "vae"))}
    assert load_config(json.dumps(run), "config.json") == defaults(Train, "vae")


# -- settings ------------------------------------------------------------------------------------
def test_settings_are_replaced(train: Train) -> None:
    changed = with_settings(train, {"model": {"latent_dim": 99}, "seed": 4, "image_size": None})
    assert changed.model == replace(train.model, latent_dim=99)
    assert (changed.seed, changed.image_size) == (4, None)
    assert changed.optim == train.optim and changed.data_root == train.data_root
    assert with_settings(train, {}) == train


def test_a_choice_among_tuples_may_be_json_text() -> None:
    """As Tune's domains have it."""
    changed = with_settings(defaults(Train, "vae"), {"model": {"hidden": "[64, 32]"}})
    assert changed.model.hidden == (64, 32)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"epoch": 3}, "epoch = 3"),
        ({"trials": 3}, "trials = 3"),
        ({"model": {"latent": 3}}, "model.latent = 3"),
        ({"optim": {"learning_rate": 3}}, "optim.learning_rate = 3"),
        ({"model.latent_dim": 3}, "model.latent_dim = 3"),
    ],
)
def test_unknown_settings_are_refused(settings: dict[str, Any], name: str) -> None:
    for call in (
        lambda: with_settings(defaults(Train, "vae"), settings),
        lambda: make_config(Train, "vae", settings),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value).startswith(f"{name}: expected one of ")


def test_settings_that_are_none_keep_their_defaults() -> None:
    assert make_config(Train, "vae", {"seed": None}) == defaults(Train, "vae")


def test_a_search_s_content_for_a_run(search: Search) -> None:
    assert from_dict(Train, train_content(to_dict(search))) == as_train(search)


def test_the_settings_of_the_result_are_flat_and_leave_out_where_it_ran(search: Search) -> None:
    known = result_settings(search)
    assert known["model.hidden"] == search.model.hidden and known["trials"] == 5
    assert not {*known} & (WHERE | WHICH | {"further"})
    assert {*known} == {*flatten(to_dict(search))} - WHERE - WHICH - {"further"}
    moved = replace(search, store=Path("/elsewhere"), data_root=Path("/x"), json=True)
    assert result_settings(moved) == known
    assert result_settings(replace(search, seed=9)) != known


# -- runs without config.json --------------------------------------------------------------------
def as_mlflow_has_them(run: Run) -> tuple[dict[str, str], dict[str, str]]:
    params = {name: str(value) for name, value in result_settings(run).items()}
    tags = {"family": run.family, "rerun": rerun_command(run), "mlflow.runName": "a"}
    return params, tags


def test_a_config_is_read_from_mlflow_s_params(train: Train) -> None:
    again = config_from_params(*as_mlflow_has_them(train))
    assert again == train
    plain = replace(defaults(Train, train.family), data_root=Path("/data"))
    again = config_from_params(*as_mlflow_has_them(plain))
    assert again == plain and again.image_size is None and again.drop_last is True


def test_a_config_is_read_from_the_journal_s_params(train: Train) -> None:
    """Where tuples are text and other values are not."""
    params = {
        name: value if isinstance(value, (str, int, float, bool)) else str(value)
        for name, value in result_settings(train).items()
    }
    assert config_from_params(params, as_mlflow_has_them(train)[1]) == train


def test_a_trial_s_config_is_read_from_the_params_of_its_search(search: Search) -> None:
    assert config_from_params(*as_mlflow_has_them(search)) == as_train(search)


def test_a_run_of_another_program_has_no_config() -> None:
    with pytest.raises(InputError, match=r"^run = 'other': expected a run of genpipe$"):
        config_from_params({"lr": "0.1"}, {"mlflow.runName": "other"})


def test_what_each_command_says_itself_is_not_recorded() -> None:
    """Above all the store's path: a store may be moved."""
    run = make_config(Search, "vae", {"store": "/first/place", "address": "h:1", "download": True})
    text = dump_config(run)
    assert "/first/place" not in text and "h:1" not in text
    content = json.loads(text)["config"]
    assert HERE.isdisjoint(content) and {f.name for f in fields(Search)} == {*content, *HERE}
    assert load_config(text, "config.json") == make_config(Search, "vae", {})
