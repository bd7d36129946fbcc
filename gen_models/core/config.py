"""Conversion of configs: frozen dataclasses of numbers, strings, tuples and further
dataclasses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from gen_models.core.errors import require

T = TypeVar("T")


def from_dict(cls: type[T], content: Mapping[str, Any]) -> T:
    """Build a config from the dictionary that `dataclasses.asdict` and JSON made of it.

    A tuple may be JSON text. Absent fields have their defaults. Raises `InputError` that names a
    field that the config does not have, at any depth.
    """
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    for name in content:
        require(name in known, f"{cls.__name__}.{name}", content[name], f"one of {sorted(known)}")
    hints = get_type_hints(cls)
    return cls(**{name: _value(hints[name], value) for name, value in content.items()})


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries: `{"optim": {"lr": 1}}` becomes `{"optim.lr": 1}`."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        path = f"{prefix}{name}"
        flat |= flatten(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return flat


def merge(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `content` with values replaced by those of `changes`, at any depth."""
    merged = dict(content)
    for name, value in changes.items():
        old = merged.get(name)
        deeper = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[name] = merge(old, value) if deeper else value  # type: ignore[arg-type]
    return merged


def _value(hint: Any, value: Any) -> Any:
    if is_dataclass(hint) and isinstance(value, Mapping):
        return from_dict(hint, value)  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        kind, *_ = get_args(hint)
        items = json.loads(value) if isinstance(value, str) else value
        return tuple(_value(kind, each) for each in items)
    return float(value) if hint is float else value
