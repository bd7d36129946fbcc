"""YAML that a person writes, such as a job file: read without running any of it, with the line of
each value.

The scalars are those of YAML 1.2: `off` is text, `1e-5` is a number, and a date is text. Anchors,
aliases, tags and further documents are refused, so a file takes no more memory than its size
justifies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gen_models.core.errors import InputError, shown, shown_name

MAX_BYTES = 256 << 10
"""Of a YAML file; job files have some 500."""

Key = tuple[str | int, ...]
"""Where a value stands: the keys and indices that lead to it."""

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


class PlacedError(InputError):
    """Wrong input in a file, whose message says where it stands."""


@dataclass(frozen=True)
class Document:
    """The content of a YAML text, and where each value of it stands."""

    where: str
    """Names the file in messages."""
    content: Any
    places: Mapping[Key, str] = field(default_factory=dict)
    """Where each value stands, as a message says it: `job.yaml, line 4`."""

    def place(self, *key: str | int) -> str:
        """Return where a value stands; of one that is not there, where it would belong."""
        while key and key not in self.places:
            key = key[:-1]
        return self.places.get(key, self.where)

    def error(self, message: str, *key: str | int) -> PlacedError:
        """Return the error of a value: its place, and the message."""
        return PlacedError(f"{self.place(*key)}: {message}")

    def find(self, under: Key, name: str) -> Key:
        """Return where the setting of a dotted name stands below `under`; `under` if nowhere. An
        error of a config names some settings without what they belong to."""
        parts = tuple(name.split("."))
        found = (k for k in self.places if k[: len(under)] == under and k[-len(parts) :] == parts)
        return min(found, key=len, default=under)

    def replaced(self, key: Key, value: Any, place: str) -> Document:
        """Return the document with another value at a key, which stands at `place`. Mappings that
        lead there are made; what is no mapping is replaced."""
        content = _with_value(self.content, key, value)
        known = {k: v for k, v in self.places.items() if k[: len(key)] != key}
        above = {key[:n]: place for n in range(1, len(key)) if key[:n] not in known}
        return Document(self.where, content, {**known, **above, key: place})


def _with_value(content: Any, key: Key, value: Any) -> Any:
    if not key:
        return value
    first, *rest = key
    inside = dict(content) if isinstance(content, Mapping) else {}
    return inside | {first: _with_value(inside.get(first), tuple(rest), value)}


def read_yaml(path: Path) -> Document:
    """Return the document in a file. Raises `InputError` if there is none, and as `parse_yaml`."""
    if not path.is_file():  # a pipe or a device could be read for ever
        raise InputError(f"{shown_name(str(path))}: expected a YAML file: there is none")
    with path.open("rb") as file:
        return parse_yaml(file.read(MAX_BYTES + 1), shown_name(str(path)))


def parse_yaml(text: str | bytes, where: str) -> Document:
    """Return the document in a text, which `where` names in errors.

    Raises `InputError` with the line if the text is longer than `MAX_BYTES`, no YAML, nested too
    deep, has a key twice, or uses what is refused.
    """
    if len(text) > MAX_BYTES:
        raise InputError(f"{where}: expected at most {MAX_BYTES} bytes of YAML")
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        places: dict[Key, str] = {}
        node = _Loader(decoded).get_single_node()
        content = None if node is None else _value(node, (), where, places)
        return Document(where, content, places)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{where}: expected UTF-8: {error.reason} at byte {error.start}"
        ) from None
    except RecursionError:
        raise InputError(f"{where}: expected YAML that is not nested so deep") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{where}{line}: no YAML: {shown_name(error.problem)}") from None
    except yaml.YAMLError as error:  # a character that no YAML has
        reason = getattr(error, "reason", type(error).__name__)
        raise InputError(f"{where}: no YAML: {reason}") from None


class _Loader(yaml.SafeLoader):
    """Composes nodes; `_value` makes values of them, and nothing else does."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  plain scalars are text until `_scalar`

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ComposerError(None, None, "anchors and aliases are not taken", event.start_mark)
        if getattr(event, "tag", None):
            raise ComposerError(None, None, "tags are not taken", event.start_mark)
        return super().compose_node(parent, index)


def _value(node: Node, key: Key, where: str, places: dict[Key, str]) -> Any:
    places.setdefault(key, f"{where}, line {node.start_mark.line + 1}")
    if isinstance(node, ScalarNode):
        return _scalar(node, places[key])
    if isinstance(node, SequenceNode):
        return [_value(each, (*key, n), where, places) for n, each in enumerate(node.value)]
    assert isinstance(node, MappingNode)
    content: dict[str, Any] = {}
    for name_node, inner in node.value:
        place = f"{where}, line {name_node.start_mark.line + 1}"
        if not isinstance(name_node, ScalarNode):
            raise InputError(f"{place}: expected a name before the colon")
        name = str(name_node.value)
        if name in content:
            first = places[(*key, name)].rpartition(" ")[2]
            raise InputError(f"{place}: {shown_name(name)} stands twice, first in line {first}")
        places[(*key, name)] = place
        content[name] = _value(inner, (*key, name), where, places)
    return content


def _scalar(node: ScalarNode, place: str) -> Any:
    text = str(node.value)
    if node.style is not None:  # quoted, or a block of text
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    try:
        if _INTEGER.fullmatch(text):
            return int(text)
    except ValueError:  # of more digits than Python takes
        raise InputError(f"{place}: {shown(text)} has too many digits") from None
    return float(text) if _FLOAT.fullmatch(text) else text


# -- writing -------------------------------------------------------------------------------------
class _Dumper(yaml.SafeDumper):
    """Puts quotes around text that a reader of YAML 1.1 or 1.2 would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_list(dumper: _Dumper, values: list[Any]) -> Node:
    """Write a list in one line, unless it has texts that are no single words."""
    in_line = not any(isinstance(each, str) and " " in each for each in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=in_line)


def _represent_text(dumper: _Dumper, text: str) -> Node:
    """Write a text; one with characters such as line ends with escapes, in double quotes."""
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(list, _represent_list)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def dump_yaml(content: Any) -> str:
    """Return plain values as YAML text, which `parse_yaml` reads back as they are."""
    return yaml.dump(
        content,
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=False,
        allow_unicode=True,
        width=99,
    )
