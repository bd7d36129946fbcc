"""A family's `Config` and `Optim` from its source, without importing torch.

The command line needs the names, types, defaults and docstrings of a family's settings, to answer
`--help` and a mistyped flag, and importing a family takes seconds, because it imports torch. So
only those statements of its module are executed that the two classes depend on.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from importlib.abc import InspectLoader
from importlib.util import find_spec
from types import CodeType, ModuleType

PARTS = ("Config", "Optim")


def read_settings(name: str) -> ModuleType | None:
    """Return a module with `Config` and `Optim` of the family in the module `name`; None if its
    source is not there, or if the statements that they depend on cannot be executed alone.

    The classes are others than those that importing `name` makes: their instances are not equal to
    a config, and cannot be sent to another process.
    """
    own = f"{name}:settings"
    if own in sys.modules:
        return sys.modules[own]
    try:
        spec = find_spec(name)
        if spec is None or spec.origin is None or not isinstance(spec.loader, InspectLoader):
            return None
        code = _needed_code(spec.loader.get_source(name) or "", spec.origin)
    except (ImportError, SyntaxError, ValueError):
        return None
    module = ModuleType(own, f"Settings of {name}.")
    module.__file__, module.__package__ = spec.origin, spec.parent
    sys.modules[own] = module  # where dataclasses and `get_type_hints` look for the names of types
    try:
        exec(code, vars(module))  # nosec  # what importing the module would execute
        if all(hasattr(module, part) for part in PARTS):
            return module
    except Exception as error:  # the import of the whole module says what is wrong
        del error
    del sys.modules[own]
    return None


def _needed_code(source: str, path: str) -> CodeType:
    """Return the code of a module's statements that `PARTS` depend on, directly or not."""
    statements = ast.parse(source).body
    binding: dict[str, list[int]] = {}
    for index, statement in enumerate(statements):
        for name in _bound(statement):
            binding.setdefault(name, []).append(index)
    kept = {index for index, each in enumerate(statements) if _is_future(each)}
    wanted, seen = list(PARTS), set[str]()
    while wanted:
        name = wanted.pop()
        if name not in seen:
            seen.add(name)
            kept.update(binding.get(name, ()))
            for index in binding.get(name, ()):
                wanted += _used(statements[index])
    needed = [statements[index] for index in sorted(kept)]
    return compile(ast.Module(needed, []), path, "exec", dont_inherit=True)


def _is_future(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"


def _bound(statement: ast.stmt) -> set[str]:
    """Return the names that a statement of a module binds there, and some of functions in it."""
    names: set[str] = set()
    for node in _outside_definitions(statement):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.alias(name=name, asname=given):
                names.add(given or name.partition(".")[0])
    return names


def _outside_definitions(statement: ast.AST) -> Iterable[ast.AST]:
    """Iterate over a statement's nodes, without what stands within classes and functions."""
    yield statement
    if not isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        for child in ast.iter_child_nodes(statement):
            yield from _outside_definitions(child)


def _used(statement: ast.stmt) -> set[str]:
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
