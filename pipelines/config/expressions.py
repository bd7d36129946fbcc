"""Conditions on settings, such as `model.arch == "mlp" and model.latent_dim <= 64`.

An expression is Python's syntax, of which comparisons, `and`, `or`, `not`, arithmetic, numbers,
text, lists and names of settings are understood. It is parsed and never evaluated as code.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gen_models.core.errors import InputError, shown

MAX_CHARACTERS = 1_000
"""Of an expression or a domain."""
_MAX_DEPTH = 100
"""Of its syntax tree: a deeper one could exhaust the stack."""
_UNDERSTOOD = (
    "comparisons (== != < <= > >= in, not in), and, or, not, + - * / // %, numbers, text, lists "
    "and names of settings"
)
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}
_COMPUTE: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


@dataclass(frozen=True)
class Expression:
    """A condition on settings."""

    text: str
    tree: ast.expr = field(compare=False, repr=False)
    names: frozenset[str]
    """The settings that it names, flat: `model.arch`."""

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Return whether the condition is true. `settings`: a value for each name.

        Raises `InputError` if the values cannot be compared, such as text with a number.
        """
        try:
            return bool(_value(self.tree, settings))
        except (TypeError, ValueError, ArithmeticError) as error:
            values = {name: settings[name] for name in sorted(self.names)}
            raise InputError(
                f"{self.text}: not a condition on {shown(values)}: {error}"
            ) from error


def parse_expression(field: str, text: str) -> Expression:
    """Return the expression in a text. `field` names the text in errors.

    Raises `InputError` at a text that is no expression, or has more than is understood.
    """
    return as_expression(field, parse_python(field, text))


def as_expression(field: str, tree: ast.expr) -> Expression:
    """Return the expression in a part of a parsed text; raises as `parse_expression` does."""
    return Expression(ast.unparse(tree), tree, frozenset(_names(field, tree)))


def parse_python(field: str, text: str) -> ast.expr:
    """Return the syntax tree of a text. Raises `InputError` if it is no expression of Python."""
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"{field}: expected at most {MAX_CHARACTERS} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else type(error).__name__
        raise InputError(f"{field} = {shown(text)}: cannot be parsed: {reason}") from error
    if _depth(tree) > _MAX_DEPTH:
        raise InputError(f"{field} = {shown(text)}: expected at most {_MAX_DEPTH} levels")
    return tree


def _depth(tree: ast.expr) -> int:
    """Return the levels of a syntax tree."""
    depth, level = 0, list[ast.AST]([tree])
    while level:
        depth, level = depth + 1, [c for node in level for c in ast.iter_child_nodes(node)]
    return depth


def literal(field: str, tree: ast.expr) -> Any:
    """Return the value of a number, text, list, tuple, True, False or None.

    Raises `InputError` at anything else.
    """
    try:
        return ast.literal_eval(tree)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        expected = "a number, text or a list of them"
        raise InputError(f"{field}: {shown(ast.unparse(tree))}: expected {expected}") from error


def dotted_name(tree: ast.expr) -> str | None:
    """Return a name such as `model.arch`; None if the tree is none."""
    match tree:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=inner, attr=attribute):
            before = dotted_name(inner)
            return None if before is None else f"{before}.{attribute}"
    return None


def _names(field: str, tree: ast.expr) -> set[str]:
    """Return the names in an expression; raises `InputError` at what is not understood."""
    if name := dotted_name(tree):
        return {name}
    match tree:
        case ast.Constant():
            return set()
        case ast.BoolOp(values=parts):
            known = parts
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            known = [operand]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _COMPUTE:
            known = [left, right]
        case ast.Compare(left=left, ops=ops, comparators=rest) if {type(o) for o in ops} <= {
            *_COMPARE
        }:
            known = [left, *rest]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            known = items
        case _:
            part = shown(ast.unparse(tree))
            raise InputError(f"{field}: {part} is not understood: expected {_UNDERSTOOD}")
    return set().union(*(_names(field, each) for each in known))


def _compute(operation: ast.operator, left: Any, right: Any) -> Any:
    """Compute with numbers: of text and lists a product could take all memory."""
    for value in (left, right):
        if not isinstance(value, (int, float)):
            raise TypeError(f"expected a number: {shown(value)}")
    return _COMPUTE[type(operation)](left, right)


def _value(tree: ast.expr, settings: Mapping[str, Any]) -> Any:
    if name := dotted_name(tree):
        value = settings[name]
        return list(value) if isinstance(value, tuple) else value
    match tree:
        case ast.Constant(value=value):
            return value
        case ast.BoolOp(op=op, values=parts):
            decide = all if isinstance(op, ast.And) else any
            return decide(_value(part, settings) for part in parts)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, settings)
        case ast.UnaryOp(operand=operand):
            return -_value(operand, settings)
        case ast.BinOp(left=left, op=operation, right=right):
            return _compute(operation, _value(left, settings), _value(right, settings))
        case ast.Compare(left=left, ops=ops, comparators=rest):
            values = [_value(each, settings) for each in (left, *rest)]
            pairs = zip(ops, values, values[1:], strict=False)
            return all(_COMPARE[type(op)](a, b) for op, a, b in pairs)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item, settings) for item in items]
    raise AssertionError(ast.dump(tree))  # `_names` has refused it
