"""Configs as JSON: `config.json` with a format number, and migrations from older formats.

    {"format": 2, "command": "search", "config": {"family": "vae", "model": {…}, …}}

A run's folder and its MLflow run both hold the file. It is what `--resume`, `confirm` and
`evaluate` read; the command line in the tag `rerun` is text for people.
"""

from __future__ import annotations

import ast
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import gen_models
from gen_models.core.config import convert, flatten, merge, nest, parse_object
from gen_models.core.errors import InputError, require, shown, shown_name
from pipelines.config.run import Run, Train, defaults
from pipelines.config.search import Search
from pipelines.config.space import EMPTY, own_space, seed_space
from pipelines.store.journal import as_json
from pipelines.store.layout import Store

FORMAT = 2
R = TypeVar("R", bound=Run)
_KINDS: dict[str, type[Run]] = {"train": Train, "search": Search}

HERE = {
    *("store", "address", "download", "json", "dry_run", "save", "notify"),
    "enqueue",
}
"""Settings that every command takes from its own arguments. They are not recorded: in a store that
was moved they would be wrong."""
LABELS = {"tag", "note"}
"""Settings that label what is recorded."""
WHERE = HERE | LABELS | {"tracking_uri", "data_root"}
"""Settings that say where and how a command runs; the result does not depend on them."""
WHICH = {"name", "resume", "seed_study", "experiment"}
"""Settings that say which run or search is meant, and where among the others it is recorded."""


# -- dictionaries -----------------------------------------------------------------------------
def to_dict(run: Run) -> dict[str, Any]:
    """Return a config as plain values that JSON can hold."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(run).items()}


def from_dict(kind: type[R], content: Mapping[str, Any]) -> R:
    """Return the config that `to_dict` made `content` of.

    Raises `InputError` at an unknown field, at any depth, and at a value that is wrong.
    """
    known = {f.name for f in fields(kind)}
    for name, value in content.items():
        require(name in known, shown_name(name), value, f"one of {', '.join(sorted(known))}")
    family = content.get("family")
    require(isinstance(family, str), "family", family, "the name of a family")
    module, hints = gen_models.family(str(family)), get_type_hints(kind)
    hints |= {"model": module.Config, "optim": module.Optim}
    return kind(**{name: convert(name, hints[name], v) for name, v in content.items()})


def with_settings(run: R, settings: Mapping[str, Any]) -> R:
    """Return `run` with some settings replaced; `settings` has the config's shape, such as
    `{"model": {"latent_dim": 4}, "seed": 3}`.

    Raises `InputError` at a setting that the config does not have.
    """
    return from_dict(type(run), merge(to_dict(run), settings))


def make_config(kind: type[R], family: str, settings: Mapping[str, Any]) -> R:
    """Return a family's default config with `settings` in place of some defaults.

    Raises `InputError` as `with_settings` does.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    return with_settings(defaults(kind, family), given)


def config_from_python(kind: type[R], family: str, settings: Mapping[str, Any]) -> R:
    """Return the config that a caller of the public functions means.

    Raises `InputError` as `make_config` does, and at settings of the command line alone.
    """
    require(isinstance(family, str), "family", family, "the name of a family")
    allowed = settings_from_python(kind)
    for name, value in settings.items():
        require(name in allowed, name, value, f"one of {', '.join(allowed)}")
    return make_config(kind, family, settings)


def settings_from_python(kind: type[Run]) -> list[str]:
    """Return the names of the settings that a config is made of, in Python and in a job file."""
    return sorted({f.name for f in fields(kind)} - _NOT_FROM_PYTHON)


_NOT_FROM_PYTHON = {"family", "further", "seed_study", "dry_run", "save", "json"}
"""Settings that follow from others, or that only the command line has."""


def train_content(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a search's config, as plain values, that the `Train` of a trial has.
    Imports no family."""
    return {f.name: content[f.name] for f in fields(Run) if f.name in content}


def result_settings(run: Run) -> dict[str, Any]:
    """Return the settings that the result depends on, flat: the run's parameters in MLflow.
    Several objectives are a tag instead."""
    left_out = WHERE | WHICH | {"further"}
    return flatten({k: v for k, v in to_dict(run).items() if k not in left_out})


# -- config.json ------------------------------------------------------------------------------
def dump_config(run: Run) -> str:
    """Return the content of `config.json`."""
    command = next(name for name, kind in _KINDS.items() if isinstance(run, kind))
    config = {name: value for name, value in to_dict(run).items() if name not in HERE}
    return as_json({"format": FORMAT, "command": command, "config": config})


def load_config(text: str | bytes, where: str) -> Run:
    """Return the config in a `config.json` of this version or an older one.

    `where` names the file in errors. Raises `InputError` if the file is damaged, of a newer
    format, or holds a field that this version does not know.
    """
    content = parse_object(text, where)
    number = content.get("format", 0)
    is_number = isinstance(number, int) and not isinstance(number, bool) and number >= 0
    require(is_number, f"{where}: format", number, f"an integer from 0 to {FORMAT}")
    if number > FORMAT:
        raise InputError(
            f"{where}: format = {shown(number)}: expected at most {FORMAT}; the file was written "
            "by a newer version of genpipe: install that one"
        )
    try:
        for migrate in _MIGRATIONS[number:]:
            content = migrate(content)
        return from_dict(_KINDS[content["command"]], content["config"])
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # a part is missing
        reason = shown(str(error))
        raise InputError(f"{where}: damaged ({type(error).__name__}: {reason})") from error


def recorded_search(store: Store, search_id: str, field: str) -> Search:
    """Return the config of a recorded search. `field`: the setting that names it.

    Raises `InputError` if there is none of this id, and as `load_config` does.
    """
    folder = store.search(search_id)
    for path in (folder.config, folder.legacy_config):
        if store.files.exists(path):
            found = load_config(store.files.read(path), str(path))
            if isinstance(found, Search):
                return found
    known = ", ".join(store.search_ids()) or "there is none"
    raise InputError(f"{field} = {search_id!r}: expected a search of {store.searches}: {known}")


def _from_format_0(content: Mapping[str, Any]) -> dict[str, Any]:
    """Migrate a `search.json`: the bare config of a search."""
    config = {("seed_study" if k == "confirms" else k): v for k, v in content.items()}
    return {"format": 1, "command": "search", "config": config}


def _from_format_1(content: Mapping[str, Any]) -> dict[str, Any]:
    """Migrate a config that names the settings that are not searched, and not the space."""
    config = dict(content["config"])
    if content["command"] == "search":
        fixed, study = config.pop("fixed", ()), config.get("seed_study")
        own = [each for each in own_space(config["family"]) if each.name not in fixed]
        seeds = seed_space(config["seed"], config["trials"]) if study else ()
        config["space"] = [*(seeds or (EMPTY, *map(str, own)))]
    return {**content, "format": 2, "config": config}


_MIGRATIONS: list[Callable[[Mapping[str, Any]], dict[str, Any]]] = [_from_format_0, _from_format_1]
"""The migration from format n to n + 1 stands at index n."""


# -- runs recorded before config.json -----------------------------------------------------------
def config_from_params(params: Mapping[str, Any], tags: Mapping[str, str]) -> Train:
    """Return the config of a run that has no `config.json`, from its parameters and tags in MLflow
    or in the journal: `{"model.latent_dim": "16", "model.hidden": "(512,)", …}`.

    Raises `InputError` if the run was not recorded by genpipe, or a parameter is not known.
    """
    family = tags.get("family", "")
    require(bool(family), "run", tags.get("mlflow.runName", ""), "a run of genpipe")
    base = defaults(Train, family)
    known = flatten(to_dict(base))
    content = nest({k: _parse(v, known[k], k) for k, v in params.items() if k in known})
    root = _flag_value(tags.get("rerun", ""), "--data-root")
    where = {"data_root": root} if root else {}
    return with_settings(base, content | where)


def _parse(value: Any, default: Any, path: str) -> Any:
    """Return a parameter that MLflow holds as text as the value that it was. `default`: the same
    setting's default, which tells text apart from a number."""
    if not isinstance(value, str) or (isinstance(default, str) and path != "fuse"):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # nested too deep
        return value


def _flag_value(command: str, flag: str) -> str | None:
    try:
        words = shlex.split(command)
    except ValueError:  # a quotation that does not end
        return None
    return words[words.index(flag) + 1] if flag in words[:-1] else None
