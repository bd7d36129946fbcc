"""The JSON schema of job files, from the settings classes of the commands.

It says which settings there are, and their types. What depends on several settings, on the data or
on the order of the stages is checked by `genpipe run` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import gen_models
from docs.docstrings import attribute_docstrings
from pipelines.cli.jobs.definition import OF_JOB, SHARED, STAGE_NAME, is_required, setting_hints
from pipelines.cli.stages import StageCommand, stage_commands
from pipelines.config.run import Run

Schema = dict[str, Any]
_REFERENCE: Schema = {"type": "string", "pattern": r"\$\{[^{}]+\}"}
_PLAIN: Mapping[Any, Schema] = {
    Any: {},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    Path: {"type": "string"},
    NoneType: {"type": "null"},
}


def job_schema() -> Schema:
    """Return the schema of a job file: one command, or stages."""
    stages = {
        f"{name}{f'-{family}' if family else ''}": _stage(command, family)
        for name, command in stage_commands().items()
        for family in (gen_models.names() if issubclass(command.settings, Run) else [""])
    }
    own = {name: _shared(name) for name in OF_JOB}
    alone = {
        f"{name}-alone": _with(stage, {**own, "job": {"type": "string"}}, ["command"])
        for name, stage in stages.items()
    }
    pool: Schema = {}
    for each in (*stages.values(), *alone.values()):
        each["properties"] = {
            name: _pooled(name, schema, pool) for name, schema in each["properties"].items()
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Job files of genpipe: genpipe run JOB.yaml",
        "anyOf": [{"$ref": "#/$defs/stages"}, *_refs(alone)],
        "$defs": {"stages": _several(stages), **stages, **alone, **pool},
    }


def _pooled(name: str, schema: Schema, pool: Schema) -> Schema:
    """Return a reference to a setting's schema in the pool, where it stands once."""
    if "description" not in schema:
        return schema
    number, key = 1, f"setting-{name}"
    while pool.setdefault(key, schema) != schema:
        number, key = number + 1, f"setting-{name}-{number + 1}"
    return {"$ref": f"#/$defs/{key}"}


def _several(stages: Mapping[str, Schema]) -> Schema:
    """Return the schema of a file with stages. A stage that is named after a command need not name
    the command."""
    other = {"required": ["command"], "anyOf": _refs(stages)}
    named = {
        name: {"anyOf": [*_refs(s for s in stages if s.split("-")[0] == name), other]}
        for name in stage_commands()
    }
    return {
        "type": "object",
        "properties": {
            "job": {"type": "string", "description": "The job's name; by default the file's."},
            **{name: _shared(name) for name in SHARED},
            "stages": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"pattern": f"^{STAGE_NAME.pattern}$"},
                "properties": named,
                "additionalProperties": other,
            },
        },
        "required": ["stages"],
        "additionalProperties": False,
    }


def _stage(command: StageCommand, family: str) -> Schema:
    kind = command.settings
    texts = attribute_docstrings(kind)
    hints = setting_hints(kind, family)
    properties: Schema = {
        "command": {"const": command.name},
        "may_fail": {
            "type": "boolean",
            "description": "Go on with the next stage though this one ended with exit code 1.",
        },
    }
    for name, hint in hints.items():
        if name not in OF_JOB:
            properties[name] = _setting(hint, texts.get(name, ""))
    if "space" in properties:  # also a mapping from names to domains
        properties["space"]["anyOf"].append({"type": "object"})
    required = [each.name for each in fields(kind) if is_required(each)]
    if issubclass(kind, Run):
        properties |= {"family": {"const": family}, **_metrics(texts)}
        required = ["family"]
    return {
        "type": "object",
        "description": _first_sentence(kind),
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _first_sentence(kind: type[Any]) -> str:
    """Return the first sentence of a class's docstring, in one line."""
    return " ".join((kind.__doc__ or "").split()).split(". ")[0].rstrip(".") + "."


def _metrics(texts: Mapping[str, str]) -> Schema:
    """Return the schemas of `metric` and `mode`, which are one or several."""
    metric, mode = {"type": "string"}, {"enum": ["min", "max"]}
    one_or_more = {
        "metric": {"anyOf": [metric, {"type": "array", "items": metric, "minItems": 1}]},
        "mode": {"anyOf": [mode, {"type": "array", "items": mode, "minItems": 1}]},
    }
    return {name: each | {"description": texts[name]} for name, each in one_or_more.items()}


def _shared(name: str) -> Schema:
    return _of(get_type_hints(Run)[name]) | {"description": attribute_docstrings(Run)[name]}


def _setting(hint: Any, text: str) -> Schema:
    """Return the schema of a setting: of its type, nothing for its default, or a reference."""
    inner = _of(hint)
    described = {"description": text} if text else {}
    return {"anyOf": [inner, {"type": "null"}, _REFERENCE], **described}


def _of(hint: Any) -> Schema:
    """Return the schema of a type, as `gen_models.core.config.convert` takes values for it."""
    origin = get_origin(hint)
    if is_dataclass(hint):
        texts = attribute_docstrings(hint)  # type: ignore[arg-type]
        properties = {n: _setting(h, texts.get(n, "")) for n, h in get_type_hints(hint).items()}
        return {"type": "object", "properties": properties, "additionalProperties": False}
    if origin in (Union, UnionType):
        return {"anyOf": [_of(each) for each in get_args(hint)]}
    if origin is Literal:
        return {"enum": list(get_args(hint))}
    if origin is tuple:
        first, *rest = get_args(hint)
        size = {} if rest == [Ellipsis] else {"minItems": 1 + len(rest), "maxItems": 1 + len(rest)}
        return {"type": "array", "items": _of(first), **size}
    return dict(_PLAIN[hint])


def _with(stage: Schema, properties: Schema, required: list[str]) -> Schema:
    merged = {**stage["properties"], **properties}
    return stage | {"properties": merged, "required": [*required, *stage["required"]]}


def _refs(names: Iterable[str]) -> list[Schema]:
    return [{"$ref": f"#/$defs/{name}"} for name in names]
