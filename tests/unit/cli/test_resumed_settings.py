"""Every setting of a command that resumes is applied, or refused by name with both values.

A setting that is added needs a line in a table here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import ray

from gen_models.core.config import flatten, nest
from gen_models.core.errors import InputError
from pipelines.config.run import Run, Train
from pipelines.config.search import Search, SeedStudy
from pipelines.config.serialization import dump_config, make_config, to_dict
from pipelines.store.layout import Store
from pipelines.store.secrets import hide_notice_url
from pipelines.training.preflight import preflight
from pipelines.training.run import _info, _require_same, open_run, train_config
from pipelines.tuning.search import resolve_search

Decision = Literal["applied", "refused", "names the run", "follows from others"]

RUN: Mapping[str, Decision] = {
    "family": "names the run",
    "data": "refused",
    "data_root": "applied",
    "download": "applied",
    "image_size": "refused",
    "channels": "refused",
    "binarise": "refused",
    "epochs": "refused",
    "batch_size": "refused",
    "drop_last": "refused",
    "seed": "refused",
    "device": "refused",
    "precision": "refused",
    "compile": "refused",
    "features": "refused",
    "metric": "refused",
    "mode": "refused",
    "picture_every": "refused",
    "keep_checkpoints": "refused",
    "store": "names the run",
    "tracking_uri": "applied",
    "experiment": "refused",
    "tag": "applied",
    "note": "applied",
    "address": "applied",
    "dry_run": "applied",
    "save": "applied",
    "json": "applied",
    "model": "refused",
    "optim": "refused",
}
TRAIN: Mapping[str, Decision] = {
    **RUN,
    "name": "names the run",
    "num_workers": "applied",
    "max_failures": "applied",
}
SEARCH: Mapping[str, Decision] = {
    **RUN,
    "name": "refused",
    "epochs": "applied",
    "num_workers": "refused",
    "max_failures": "refused",
    "further": "follows from others",
    "trials": "applied",
    "space": "refused",
    "warm_start": "refused",
    "warm_start_anyway": "refused",
    "enqueue": "applied",
    "require": "refused",
    "scheduler": "refused",
    "searcher": "refused",
    "grid_points": "refused",
    "grace_period": "refused",
    "reduction_factor": "refused",
    "fuse": "refused",
    "execution": "refused",
    "max_concurrent": "refused",
    "max_hours": "applied",
    "max_device_hours": "applied",
    "stop_when_flat": "applied",
    "notify": "applied",
    "confirm": "applied",
    "seeds": "applied",
    "resume": "names the run",
    "seed_study": "follows from others",
}

OTHER: Mapping[str, Any] = {
    "name": "two",
    "data": "ring8",
    "data_root": "elsewhere",
    "image_size": 16,
    "channels": "grey",
    "device": "cpu",
    "precision": "bf16",
    "compile": "off",
    "features": "pca",
    "metric": "val/elbo",
    "mode": "max",
    "tracking_uri": "sqlite:////tmp/other.db",
    "experiment": "other",
    "tag": ("team=vision",),
    "note": "# Why",
    "address": "127.0.0.1:6379",
    "save": "job.yaml",
    "scheduler": "hyperband",
    "searcher": "random",
    "fuse": "off",
    "execution": "vectorised",
    "space": ("none", "seed=choice([1, 2])"),
    "require": ("seed < 9",),
    "warm_start": ("other",),
    "enqueue": (Path("a.yaml"),),
    "max_concurrent": 2,
    "max_hours": 2.0,
    "max_device_hours": 3.0,
    "stop_when_flat": 5,
    "notify": hide_notice_url("https://host.invalid/hook"),
    "model.arch": "conv",
    "model.activation": "tanh",
    "model.likelihood": "gaussian",
}
"""Another value of settings that are no number, no bool and no tuple of numbers."""


def other(name: str, value: Any) -> Any:
    """Return an allowed value of a setting that is not `value`."""
    if name in OTHER:
        return OTHER[name]
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value / 2 or 0.5
        case tuple():
            return tuple(other(name, each) for each in value)
    raise AssertionError(f"{name} needs a line in OTHER")


def settings_of(kind: type[Run], decision: Decision) -> list[str]:
    """Return the settings that are decided so, flat."""
    table = TRAIN if kind is Train else SEARCH
    own = flatten(to_dict(make_config(kind, "vae", {})))
    return [name for name in own if table[name.partition(".")[0]] == decision]


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A new store; no test may start Ray."""
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    yield Store.at("runs")
    assert not ray.is_initialized()


@pytest.mark.parametrize(("kind", "table"), [(Train, TRAIN), (Search, SEARCH)])
def test_every_setting_is_decided(kind: type[Run], table: Mapping[str, Decision]) -> None:
    assert {field.name for field in fields(kind)} == set(table)


# -- search --resume ------------------------------------------------------------------------------
@pytest.fixture
def search(store: Store) -> Search:
    """A search that was started, with its choices as they are recorded."""
    run = resolve_search(make_config(Search, "vae", {}), {"model.kl_weight"})
    chosen = {"precision": "fp32", "scheduler": "asha", "searcher": "tpe"}
    run = replace(run, **chosen)  # type: ignore[arg-type]
    store.files.write(store.search("one").config, dump_config(run))
    return run


def resumed(name: str, value: Any) -> Search:
    """Return the search that is resumed with a setting."""
    run = make_config(Search, "vae", nest({name: value}) | {"resume": "one"})
    return resolve_search(run, {name, "resume"})


@pytest.mark.parametrize("name", settings_of(Search, "applied"))
def test_a_search_takes_a_setting(name: str, search: Search) -> None:
    before = flatten(to_dict(search))[name]
    value = other(name, before)
    after = resumed(name, value)
    assert flatten(to_dict(after))[name] == value != before
    assert replace(after, **{name: getattr(search, name)}, resume="") == search


@pytest.mark.parametrize("name", settings_of(Search, "refused"))
def test_a_search_refuses_a_setting(name: str, search: Search) -> None:
    before = flatten(to_dict(search))[name]
    value = other(name, before)
    is_searched = name in ("model.latent_dim", "optim.lr")
    with pytest.raises(InputError) as caught:
        resumed(name, value)
    message = str(caught.value)
    if name in ("metric", "mode"):  # they are named together
        assert message.startswith("metric = ") and f"expected {search.objective}" in message
        assert str(value) in message
    else:
        expected = "none, because it is searched" if is_searched else repr(before)
        assert message.startswith(f"{name} = {value!r}: expected {expected}")
    assert "as search one was started" in message


@pytest.mark.parametrize("name", settings_of(Search, "refused"))
def test_a_search_takes_a_setting_as_it_was_started(name: str, search: Search) -> None:
    if name in ("model.latent_dim", "optim.lr"):
        return  # searched: it has no one value
    value = flatten(to_dict(search))[name]
    assert replace(resumed(name, value), resume="") == search


@pytest.mark.parametrize("name", ["precision", "scheduler", "searcher"])
def test_a_choice_that_is_left_open_is_the_recorded_one(name: str, search: Search) -> None:
    value = "auto" if name == "precision" else None
    assert getattr(resumed(name, value), name) == getattr(search, name)


def test_another_search_is_not_resumed(search: Search, store: Store) -> None:
    with pytest.raises(InputError, match="resume = 'one': expected a search of gan"):
        resolve_search(make_config(Search, "gan", {"resume": "one"}), {"resume"})
    study = SeedStudy(run="r", name="n", search_id="", data_digest="d", value=None)
    run = replace(make_config(Search, "vae", {"resume": "one"}), seed_study=study)
    with pytest.raises(InputError, match="resume = 'one': expected a confirmation of r"):
        resolve_search(run, {"resume"})


# -- search --name --------------------------------------------------------------------------------
def named(**settings: Any) -> Search:
    """Return the search of the name `one` that a command with these settings means."""
    run = make_config(Search, "vae", settings | {"name": "one"})
    return resolve_search(run, {*flatten(settings), "name"})


def test_the_same_name_resumes_a_search(store: Store) -> None:
    space = ("batch_size=choice([16, 32])", "model.kl_weight=loguniform(0.1, 1.0)")
    settings = {"space": space, "optim": {"lr": 1e-3}, "tag": ("team=vision",)}
    first = named(**settings)
    assert not first.resume
    recorded = replace(first, precision="fp32", scheduler="asha", searcher="tpe")
    store.files.write(store.search("one").config, dump_config(recorded))
    assert named(**settings) == replace(recorded, resume="one") == named()
    assert named(trials=99).trials == 99
    refused = "lr = 0.01: expected 0.001, as search one was .* another --name begins a new one"
    with pytest.raises(InputError, match=refused):
        named(optim={"lr": 1e-2})
    with pytest.raises(InputError, match="space = "):
        named(space=space[:1])


# -- train --name ---------------------------------------------------------------------------------
@pytest.fixture
def trained(store: Store) -> Train:
    """A run of `genpipe train` that was started, with its choices as they are recorded."""
    context = preflight(make_config(Train, "vae", {"name": "one", "precision": "fp32"}))
    folder = store.run("one")
    open_run(folder, context.run, _info(context, context.run, "one"))
    return context.run


def again(name: str, value: Any) -> Train:
    """Return the config of a run that is resumed with a setting."""
    return make_config(Train, "vae", {"name": "one", "precision": "fp32"} | nest({name: value}))


@pytest.mark.parametrize("name", settings_of(Train, "applied"))
def test_a_run_takes_a_setting(name: str, trained: Train, store: Store) -> None:
    before = flatten(to_dict(trained))[name]
    value = other(name, before)
    run = again(name, value)
    context = preflight(replace(run, tracking_uri=None, address=None))
    _require_same(store.run("one"), _info(context, context.run, "one"))
    assert flatten(to_dict(run))[name] == value != before


@pytest.mark.parametrize("name", settings_of(Train, "refused"))
def test_a_run_refuses_a_setting(name: str, trained: Train) -> None:
    before = flatten(to_dict(trained))[name]
    value = other(name, before)
    with pytest.raises(InputError) as caught:
        train_config(again(name, value))
    message = str(caught.value)
    if name in ("data", "image_size", "channels"):  # the data differ, or have no such setting
        assert message.startswith(f"{name} = {value!r}: expected ")
    elif name == "experiment":
        assert message.startswith("experiment = 'other': expected vae-digits")
    else:
        assert message.startswith("name = 'one': expected a new name")
        assert f"has {name} = " in message and str(before) in message and str(value) in message
