"""References of a stage to the result of an earlier one: `${search.champion}`.

    ${STAGE.FIELD.FIELD…}

The fields are those of the stage's result, as `--json` prints it: names of fields, numbers of a
list's items from 0 on, and keys of a mapping, which may have dots. A reference that is the whole
value of a setting stands for what it names; within a text, for its text. A trial or a run stands
for its id in MLflow, or its name while MLflow has not recorded it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from gen_models.core.errors import InputError, did_you_mean, shown, shown_name
from pipelines.config.yaml_text import Key

_REFERENCE = re.compile(r"\$\{([^{}]*)\}")
_IDS = ("run_id", "trial_id", "name")
"""Fields by which a command finds a run, the first that is known."""


@dataclass(frozen=True)
class Reference:
    """A field of a stage's result."""

    stage: str
    path: tuple[str, ...]

    def __str__(self) -> str:
        return f"${{{'.'.join((self.stage, *self.path))}}}"

    @classmethod
    def parse(cls, inside: str) -> Reference:
        """Return the reference within `${…}`. Raises `InputError` if it is none."""
        stage, *path = inside.split(".")
        if not path or not all((stage, *path)):
            expected = "${STAGE.FIELD}, such as ${search.champion}"
            raise InputError(f"{shown_name('${' + inside + '}')}: expected {expected}")
        return cls(stage, tuple(path))


def references(value: Any, key: Key = ()) -> Iterator[tuple[Key, Reference]]:
    """Iterate over the references in a setting, at any depth, with where they stand. Raises
    `InputError` at one that is none."""
    if isinstance(value, str):
        for inside in _REFERENCE.findall(value):
            yield key, Reference.parse(inside)
    for name, each in _items(value):
        yield from references(each, (*key, name))


def has_references(value: Any) -> bool:
    """Return whether a setting has references, at any depth."""
    if isinstance(value, str):
        return bool(_REFERENCE.search(value))
    return any(has_references(each) for _, each in _items(value))


def _items(value: Any) -> Iterable[tuple[str | int, Any]]:
    """Return what a mapping or a list holds, by keys or indices."""
    if isinstance(value, Mapping):
        return value.items()
    return enumerate(value) if isinstance(value, (list, tuple)) else ()


# -- before anything runs ------------------------------------------------------------------------
def check_type(reference: Reference, result: type[Any]) -> None:
    """Check that a stage's result has the field. Raises `InputError` that names the nearest
    field, or says that what is named is no single value."""
    hint: Any = result
    done = [reference.stage]
    path = list(reference.path)
    while path:
        hint = _without_none(hint)
        where, name = ".".join(done), path.pop(0)
        if is_dataclass(hint):
            known = get_type_hints(hint)
            if name not in known:
                near = did_you_mean(name, known)
                names = ", ".join(each.name for each in fields(hint))
                raise InputError(
                    f"{reference}: {where} has no {shown(name)}{near}: it has {names}"
                )
            hint = known[name]
        elif get_origin(hint) is tuple:
            if not name.isdecimal():
                first = f"${{{where}.0}}"
                raise InputError(f"{reference}: {where} is a list: expected a number, as {first}")
            hint = get_args(hint)[0]
        elif hint is Any or _is_mapping(hint):
            value = get_args(hint)[1] if hint is not Any else Any
            if not is_dataclass(_without_none(value)):
                return  # the keys follow from the run, and may have dots
            hint = value
        else:
            raise InputError(f"{reference}: {where} is one value, and has no {shown(name)}")
        done.append(name)
    hint = _without_none(hint)
    is_run = is_dataclass(hint) and _IDS[0] in {each.name for each in fields(hint)}
    if (is_dataclass(hint) and not is_run) or _is_mapping(hint):
        raise InputError(f"{reference}: {'.'.join(done)} has several fields: expected one of them")
    if get_origin(hint) is tuple and is_dataclass(get_args(hint)[0]):
        first = f"${{{'.'.join(done)}.0}}"
        raise InputError(f"{reference}: {'.'.join(done)} is a list: expected one, as {first}")


def _without_none(hint: Any) -> Any:
    """Return what a hint such as `TrialRow | None` has beside None."""
    if get_origin(hint) in (Union, UnionType):
        others = [each for each in get_args(hint) if each is not NoneType]
        return others[0] if len(others) == 1 else Any
    return hint


def _is_mapping(hint: Any) -> bool:
    origin = get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, Mapping)


# -- once the stages before have ended -----------------------------------------------------------
def resolve(value: Any, results: Mapping[str, Any]) -> Any:
    """Return a setting with the values of the references in it, at any depth. `results`: those of
    the stages before, as plain values. Raises `InputError` if a stage's result lacks one."""
    if isinstance(value, str):
        if whole := _REFERENCE.fullmatch(value):
            return _find(Reference.parse(whole[1]), results)
        return _REFERENCE.sub(lambda m: str(_find(Reference.parse(m[1]), results)), value)
    if isinstance(value, Mapping):
        return {name: resolve(each, results) for name, each in value.items()}
    if isinstance(value, list):
        return [resolve(each, results) for each in value]
    return value


def _find(reference: Reference, results: Mapping[str, Any]) -> Any:
    value, path = results[reference.stage], list(reference.path)
    while path:
        rest = ".".join(path)
        if isinstance(value, Mapping) and rest in value:
            value, path = value[rest], []
        elif isinstance(value, Mapping) and path[0] in value:
            value = value[path.pop(0)]
        elif _has_item(value, path[0]):
            value = value[int(path.pop(0))]
        else:
            raise InputError(f"{reference}: stage {reference.stage} ended without {shown(rest)}")
    if isinstance(value, Mapping):
        value = next((value[name] for name in _IDS if value.get(name)), None)
    if value is None:
        raise InputError(f"{reference}: expected a value, and stage {reference.stage} has none")
    return value


def _has_item(value: Any, index: str) -> bool:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return is_list and index.isdecimal() and int(index) < len(value)
