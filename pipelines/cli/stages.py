"""Commands as stages of a job file: what a command's module must have, and which modules have it.

A command can be a stage if its module has two functions, whose annotations say the rest:

    run(settings: Evaluate, call: Call) -> EvaluationResult     does it
    show(result: EvaluationResult, settings: Evaluate) -> None  prints the result for people

`finish` is how the command itself ends, on the command line.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, get_type_hints

from pipelines.report.results import Result

_COMMANDS = "pipelines.cli.commands"
"""The package of the commands. They are found by their files' names, and imported by none."""


@dataclass(frozen=True)
class Call:
    """What a command was given, beside the values of its settings."""

    given: frozenset[str] = frozenset()
    """Names of the settings that were given a value, flat: `model.latent_dim`."""
    search_id: str = ""
    """Of a job's stage: the id of the search that the command makes, or goes on with if it was
    begun. "": a new one."""


@dataclass(frozen=True)
class StageCommand:
    """A command that can be a stage."""

    name: str
    settings: type[Any]
    result: type[Result]
    run: Callable[[Any, Call], Result]
    show: Callable[[Any, Any], None]


@cache
def stage_commands() -> dict[str, StageCommand]:
    """Return the commands that can be stages, by their names."""
    package = import_module(_COMMANDS)
    modules = (
        import_module(f"{_COMMANDS}.{m.name}") for m in pkgutil.iter_modules(package.__path__)
    )
    made = (_stage_command(module) for module in modules if hasattr(module, "run"))
    return {each.name: each for each in made}


def _stage_command(module: ModuleType) -> StageCommand:
    hints, name = get_type_hints(module.run), module.__name__.rpartition(".")[2]
    return StageCommand(name, hints["settings"], hints["return"], module.run, module.show)


def finish(result: Result, settings: Any, show: Callable[[Any, Any], None]) -> int:
    """Print a command's result, for people or, if that was asked for, as JSON; return the exit
    code."""
    if settings.json:
        print(result.to_json())
    else:
        show(result, settings)
    return result.exit_code
