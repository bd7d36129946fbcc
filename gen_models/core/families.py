"""Registry of families: the modules of `gen_models`, and families that other packages supply.

A package outside this repository registers a family as an entry point:

    # pyproject.toml                       # my_package/__init__.py
    [project.entry-points."genpipe.families"]   from gen_models import Family
    wae = "my_package:WAE"                 WAE = Family("my_package.wae", "my_package.wae_space")

The entry point's name is the family's name. `Family` holds names of modules and not the modules,
so that listing families and their spaces imports neither torch nor Ray.
"""

from __future__ import annotations

import pkgutil
import sys
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, NamedTuple

from gen_models.core.errors import InputError, did_you_mean, shown
from gen_models.core.settings import PARTS, read_settings

GROUP = "genpipe.families"
"""The entry-point group in which other packages register families."""

_PACKAGE = Path(__file__).parents[1]
_REQUIRED = (*PARTS, "Model")


class Family(NamedTuple):
    """Where the parts of a family are: the value of an entry point of `genpipe.families`."""

    module: str
    """Name of the module with `Config`, `Optim` and `Model` (`gen_models.core.contract`)."""
    space: str
    """Name of the module with `SPACE`, a `tune_spaces.Space`."""


def names() -> list[str]:
    """List the names of all families, sorted. Imports none of them.

    Raises `InputError` if two families have the same name.
    """
    return sorted({*_built_in(), *_external()})


def family(name: str) -> Any:
    """Import the module of a family; it satisfies `gen_models.core.contract`.

    Raises `InputError` if there is no such family, or if its package is broken.
    """
    module = _import(name, _locate(name).module)
    missing = [part for part in _REQUIRED if not hasattr(module, part)]
    if missing:
        raise InputError(
            f"{_origin(name)}: module {module.__name__} has no {', '.join(missing)}: "
            f"expected {', '.join(_REQUIRED)}"
        )
    return module


def settings(name: str) -> Any:
    """Return a module with a family's `Config` and `Optim`: its own, if that is imported already;
    else one that is made without torch, if that can be, to describe and check settings. Its
    instances are none of a config (`gen_models.core.settings`).

    Raises `InputError` as `family` does.
    """
    module = _locate(name).module
    if module in sys.modules:
        return family(name)
    return read_settings(module) or family(name)


def space(name: str) -> Any:
    """Import the search space of a family, a `tune_spaces.Space`.

    Raises `InputError` if there is no such family, or if its package is broken.
    """
    module = _import(name, space_module(name))
    if not hasattr(module, "SPACE"):
        raise InputError(f"{_origin(name)}: module {module.__name__} has no SPACE")
    return module.SPACE


def space_module(name: str) -> str:
    """Return the name of the module with a family's search space. Does not import it."""
    return _locate(name).space


def distribution(name: str) -> str | None:
    """Return the name of the package that supplies a family; None for a built-in one."""
    entry_point = _external().get(name)
    return None if entry_point is None else _distribution(entry_point)


def _built_in() -> list[str]:
    """Modules of `gen_models`; its packages are no families."""
    return [m.name for m in pkgutil.iter_modules([str(_PACKAGE)]) if not m.ispkg]


def _external() -> dict[str, EntryPoint]:
    return _read_entry_points(tuple(sys.path))


@lru_cache(maxsize=1)
def _read_entry_points(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Read the entry points of the packages on `path`, which is `sys.path`: reading the metadata
    of all installed packages takes tens of milliseconds."""
    registered: dict[str, EntryPoint] = {}
    for entry_point in entry_points(group=GROUP):
        name, package = entry_point.name, _distribution(entry_point)
        if name in _built_in():
            raise InputError(
                f"package {package}: family {name!r} has the name of a built-in family: "
                "rename its entry point, or uninstall the package"
            )
        if name in registered:
            raise InputError(
                f"packages {_distribution(registered[name])} and {package}: both supply a family "
                f"{name!r}: uninstall one of them"
            )
        registered[name] = entry_point
    return registered


def _distribution(entry_point: EntryPoint) -> str:
    return entry_point.dist.name if entry_point.dist else entry_point.module


def _locate(name: str) -> Family:
    if name in _built_in():
        return Family(f"gen_models.{name}", f"tune_spaces.{name}")
    entry_point = _external().get(name)
    if entry_point is None:
        hint, known = did_you_mean(name, names()), ", ".join(names())
        raise InputError(f"unknown family {shown(name)}{hint}: expected one of {known}")
    try:
        value = entry_point.load()
    except Exception as error:  # whatever the package raises when it is imported
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{_origin(name)}: broken entry point: {reason}") from error
    if not isinstance(value, Family) or not all(isinstance(part, str) for part in value):
        raise InputError(
            f"{_origin(name)}: entry point {entry_point.value} is {value!r}: "
            "expected a gen_models.Family of two module names"
        )
    return value


def _import(name: str, module: str) -> Any:
    try:
        return import_module(module)
    except Exception as error:  # whatever the module raises when it is imported
        if name in _built_in():
            raise
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{_origin(name)}: cannot import {module}: {reason}") from error


def _origin(name: str) -> str:
    package = distribution(name)
    return f"family {name!r}" + (f" of package {package}" if package else "")
