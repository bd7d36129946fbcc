"""Docstrings under the fields of dataclasses, which Python does not keep."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from itertools import pairwise


def attribute_docstrings(kind: type[object]) -> Mapping[str, str]:
    """Return the docstrings under the fields of a dataclass and of those that it extends."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__[:-1]):
        tree = ast.parse(textwrap.dedent(inspect.getsource(each)))
        body = next(node for node in tree.body if isinstance(node, ast.ClassDef)).body
        for node, following in pairwise(body):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                match following:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        found[node.target.id] = inspect.cleandoc(text)
    return found
