"""What is trained: a file in this folder is a family, and its name is the family's name.

Plain PyTorch on one device, one trial at a time; neither Ray nor MLflow is imported here.
"""

import pkgutil
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from gen_models.core.errors import InputError

_NOT_FAMILIES = {"blocks", "core", "fused", "metrics", "training"}


def names() -> list[str]:
    """The families, by name. Imports none of them."""
    return sorted({m.name for m in pkgutil.iter_modules(__path__)} - _NOT_FAMILIES)


def family(name: str) -> Any:
    """The module of a family; it satisfies `gen_models.core.contract`.

    Raises `InputError` where there is no such family.
    """
    if name not in names():
        near = get_close_matches(name, names(), n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise InputError(f"unknown family {name!r}{hint}: expected one of {', '.join(names())}")
    return import_module(f"gen_models.{name}")
