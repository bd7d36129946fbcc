"""Conversion of configs: frozen dataclasses of numbers, strings, tuples and further
dataclasses."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from gen_models.core.errors import InputError, require, shown, shown_name

T = TypeVar("T")

MAX_BYTES = 1 << 20
"""Of a JSON file with a config; they have some 2,000 bytes."""
MAX_ITEMS = 256
"""Of a list in a config, such as the widths of hidden layers."""


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises `OSError` if the file cannot be read, and `InputError` as `parse_object` does, or if it
    is no regular file.
    """
    if path.exists() and not path.is_file():  # a pipe or a device could be read for ever
        raise InputError(f"{path}: expected a regular file")
    with path.open("rb") as file:
        return parse_object(file.read(MAX_BYTES + 1), str(path))


def parse_object(text: str | bytes, where: str) -> dict[str, Any]:
    """Return the JSON object in a text, which `where` names in errors.

    Raises `InputError` if the text is longer than `MAX_BYTES`, no JSON, nested too deep or
    anything but an object.
    """
    if len(text) > MAX_BYTES:
        raise InputError(f"{where}: damaged: expected a JSON object of at most {MAX_BYTES} bytes")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: damaged, no JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{where}: damaged: expected a JSON object, found {shown(content)}")
    return content


def from_dict(cls: type[T], content: Mapping[str, Any], prefix: str = "") -> T:
    """Build a config from the dictionary that `dataclasses.asdict` and JSON made of it.

    A tuple may be JSON text. Absent fields have their defaults. `prefix` stands before field names
    in errors, such as `model.`. Raises `InputError` that names a field that the config does not
    have, that it lacks, or whose value is of another type, at any depth.
    """
    above = prefix or f"{cls.__name__}."
    require(isinstance(content, Mapping), above.rstrip("."), content, "a mapping")
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    for name in content:
        label = f"{above}{shown_name(name)}"
        require(name in known, label, content[name], f"one of {sorted(known)}")
    for name, field in known.items():
        is_given = name in content or (field.default, field.default_factory) != (MISSING, MISSING)
        require(is_given, above.rstrip("."), dict(content), f"a mapping with {name}")
    hints = get_type_hints(cls)
    return cls(**{k: convert(f"{prefix}{k}", hints[k], v) for k, v in content.items()})


def convert(field: str, hint: Any, value: Any) -> Any:
    """Return a value as its type hint has it: a list as a tuple, an integer as a float.

    Raises `InputError` that names the field if the value is of another type.
    """
    origin = get_origin(hint)
    if hint is Any:
        return value
    if is_dataclass(hint):
        return value if isinstance(value, hint) else from_dict(hint, value, f"{field}.")  # type: ignore[arg-type]
    if origin in (Union, UnionType):
        return _convert_union(field, hint, value)
    if origin is tuple:
        return _convert_tuple(field, hint, value)
    if origin is Literal:
        known = any(value == each and type(value) is type(each) for each in get_args(hint))
        require(known, field, value, _describe(hint))
        return value
    if hint not in _TYPES:
        raise TypeError(f"{field}: a config cannot hold values of type {hint}")
    accepted, _ = _TYPES[hint]
    is_bool = isinstance(value, bool)
    require(
        isinstance(value, accepted) and is_bool == (hint is bool), field, value, _describe(hint)
    )
    if hint is float:
        return _finite(field, value)
    return None if hint is NoneType else hint(value)


_TYPES: dict[Any, tuple[Any, str]] = {
    bool: (bool, "True or False"),
    int: (Integral, "an integer"),
    float: (Real, "a number"),
    str: (str, "text"),
    Path: ((str, Path), "a path"),
    NoneType: (NoneType, "nothing"),
}
"""The plain types of a config's fields: the types of values that they accept, and their name."""


MAX_INTEGER = 2**63 - 1
"""The largest integer that torch, numpy and databases hold."""


def require_finite(config: Any) -> None:
    """Raise `InputError` that names the first number of a config, at any depth, that is infinite
    or not a number, or that is an integer of more than 64 bits."""
    for name, value in flatten(asdict(config)).items():
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, float):
                require(math.isfinite(each), name, value, "a finite number")
            elif isinstance(each, int):
                require(abs(each) <= MAX_INTEGER, name, value, "an integer of at most 64 bits")


def _finite(field: str, value: Any) -> float:
    try:
        number = float(value)
    except OverflowError:  # an integer beyond every float
        number = math.inf
    require(math.isfinite(number), field, value, "a finite number")
    return number


def _convert_union(field: str, hint: Any, value: Any) -> Any:
    for each in get_args(hint):
        try:
            return convert(field, each, value)
        except InputError as error:
            if is_dataclass(each) and isinstance(value, Mapping):
                raise  # its message names the field within
            del error
    raise InputError(f"{field} = {shown(value)}: expected {_describe(hint)}")


def _convert_tuple(field: str, hint: Any, value: Any) -> tuple[Any, ...]:
    """Convert a list, a tuple or JSON text of one."""
    items = value
    if isinstance(value, str):
        try:
            items = json.loads(value)
        except (ValueError, RecursionError):
            items = None
    is_list = isinstance(items, Sequence) and not isinstance(items, str)
    require(is_list, field, value, _describe(hint))
    require(len(items) <= MAX_ITEMS, field, value, f"at most {MAX_ITEMS} values")
    kinds = get_args(hint)
    if kinds[-1] is Ellipsis:
        return tuple(convert(field, kinds[0], each) for each in items)
    require(len(items) == len(kinds), field, value, f"{len(kinds)} values")
    return tuple(convert(field, kind, each) for kind, each in zip(kinds, items, strict=True))


def _describe(hint: Any) -> str:
    """Return what a type hint accepts, for an error message."""
    if get_origin(hint) is Literal:
        choices = ", ".join(map(str, get_args(hint)))
        return choices if len(get_args(hint)) == 1 else f"one of {choices}"
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_describe, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"a list, each {_describe(get_args(hint)[0])}"
    if is_dataclass(hint):
        return "a mapping"
    return _TYPES[hint][1]


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries: `{"optim": {"lr": 1}}` becomes `{"optim.lr": 1}`."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        path = f"{prefix}{name}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return flat settings in the config's shape: the inverse of `flatten`."""
    content: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, name = path.split(".")
        inner = content
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[name] = value
    return content


def merge(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `content` with values replaced by those of `changes`, at any depth."""
    merged = dict(content)
    for name, value in changes.items():
        old = merged.get(name)
        deeper = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[name] = merge(old, value) if deeper else value  # type: ignore[arg-type]
    return merged
