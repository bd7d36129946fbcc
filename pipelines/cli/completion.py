"""Completion of a command line by a shell: what may stand at the place of its last word.

Neither torch nor Ray is imported: a family's settings are read from its source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tyro.conf import Positional, Suppress

import gen_models
from gen_models.core.errors import InputError
from pipelines.config.run import Run, Train
from pipelines.config.search import Search
from pipelines.store.layout import Store

_COMMANDS = "pipelines.cli.commands"
_OF_FAMILY: dict[str, type[Run]] = {"train": Train, "search": Search}
_GLOBAL = ("--quiet", "--verbose")
_SEARCHES = ("report", "status", "stop", "enqueue")
"""Commands whose argument is a search."""
_TAKES_SEARCH = ("--resume", "--warm-start")


def complete(commands: Sequence[str], words: Sequence[str]) -> list[str]:
    """Return the words that may stand in place of the last of `words`, sorted; [] where the shell
    shall complete names of files. `words`: those after `genpipe`, up to the cursor."""
    *before, current = words or [""]
    if before[:1] == ["submit"] and "--" in before:
        before = before[before.index("--") + 1 :]
    try:
        found = _candidates(commands, before, current)
    except InputError:  # a command or a family that there is not
        return []
    return sorted(word for word in found if word.startswith(current))


def _candidates(commands: Sequence[str], before: Sequence[str], current: str) -> list[str]:
    if not before:
        return [*commands, "--help", "--version", *_GLOBAL]
    name, rest = before[0], before[1:]
    if name not in commands:
        return []
    if name in ("best", *_OF_FAMILY) and not rest:
        return [*gen_models.names(), "--help"]
    flags = setting_flags(name, rest[0] if name in _OF_FAMILY else "")
    last = rest[-1] if rest else ""
    if (values := flags.get(last)) is not None:  # the word is a value
        if last in _TAKES_SEARCH:
            return _search_ids(rest)
        return gen_models.names() if last == "--family" else list(values)
    if current.startswith("-"):
        return [*flags, "--help", *_GLOBAL]
    return _search_ids(rest) if name in _SEARCHES else []


def setting_flags(name: str, family: str = "") -> dict[str, tuple[str, ...] | None]:
    """Return the flags of a command, each with the values that it takes: () if any, None if it
    takes no value. `family`: of a command that takes one.

    Raises `InputError` if there is no such family.
    """
    if name in _OF_FAMILY:
        module = gen_models.settings(family)
        groups = {"model": module.Config, "optim": module.Optim}
        return _flags(_OF_FAMILY[name], "", groups)
    settings = getattr(import_module(f"{_COMMANDS}.{name}"), name.capitalize())
    return _flags(settings, "", {})


def _flags(
    kind: type[Any], prefix: str, groups: dict[str, type[Any]]
) -> dict[str, tuple[str, ...] | None]:
    """Return the flags of a settings class. `groups`: the classes of fields that it leaves
    open."""
    found: dict[str, tuple[str, ...] | None] = {}
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        hint = groups.get(field.name, hints[field.name])
        marks = getattr(hint, "__metadata__", ())
        if Suppress in marks or Positional in marks:
            continue
        name = next((mark.name for mark in marks if getattr(mark, "name", None)), field.name)
        path = f"{prefix}{name.replace('_', '-')}"
        if hasattr(hint, "__dataclass_fields__"):
            found |= _flags(hint, f"{path}.", {})
        elif hint is bool:
            above, _, last = path.rpartition(".")
            found |= {f"--{path}": None, f"--{above}{'.' if above else ''}no-{last}": None}
        else:
            found[f"--{path}"] = _values(hint)
    return found


def _values(hint: Any) -> tuple[str, ...]:
    """Return the values that a type lists; () if it lists none."""
    if get_origin(hint) is Literal:
        return tuple(map(str, get_args(hint)))
    if get_origin(hint) in (Union, UnionType):
        return tuple(value for each in get_args(hint) for value in _values(each))
    return ()


def _search_ids(words: Sequence[str]) -> list[str]:
    """Return the ids of the searches in the store that the words name."""
    given = dict(pairwise(words)).get("--store")
    return Store.at(Path(given) if given else None).search_ids()
