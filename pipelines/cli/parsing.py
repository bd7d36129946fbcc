"""Parsing of arguments into configs and settings."""

from __future__ import annotations

import re
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import tyro

import gen_models
from gen_models.core.errors import InputError
from pipelines.config.run import R, defaults
from pipelines.config.search import with_metrics
from pipelines.store.layout import default_store

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RecordedSettings:
    """Settings of every command that reads what is recorded."""

    store: Path = field(default_factory=default_store)
    """Folder of all results; the default is the environment's GENPIPE_STORE, or runs."""
    tracking_uri: str | None = None
    """MLflow server or database; by default the environment's GENPIPE_TRACKING_URI or
    MLFLOW_TRACKING_URI, or STORE/mlflow.db."""
    json: bool = False
    """Print the result as one JSON object, and nothing else on stdout."""


def parse_settings(kind: type[T], command: str, args: Sequence[str]) -> T:
    """Return a command's settings; tyro exits with 2 at a flag or a value that is wrong."""
    return tyro.cli(kind, args=args, prog=f"genpipe {command}")


def parse_run(kind: type[R], command: str, args: Sequence[str]) -> R | None:
    """Return the config that `genpipe COMMAND FAMILY …` means; None if it asks for help.

    Raises `InputError`; tyro exits with 2 at a flag or a value that is wrong.
    """
    families = ", ".join(gen_models.names())
    if not args or args[0] in ("-h", "--help"):
        print(f"usage: genpipe {command} FAMILY …\n\nfamilies: {families}")
        print(f"`genpipe {command} FAMILY --help` lists the settings.")
        if not args:
            raise InputError(f"FAMILY is missing: expected one of {families}")
        return None
    settings = gen_models.settings(args[0])
    run = _parse(kind, settings, command, args)  # --help and mistakes are answered without torch
    module = gen_models.family(args[0])
    return run if module is settings else _parse(kind, module, command, args)


def _parse(kind: type[R], module: Any, command: str, args: Sequence[str]) -> R:
    prog = f"genpipe {command} {args[0]}"
    metrics, modes, rest = _split_objectives(args[1:], prog)
    default = with_metrics(defaults(kind, args[0], module), metrics, modes)
    run: R = tyro.cli(type(default), args=rest, default=default, prog=prog)
    return run


def given_settings(args: Sequence[str]) -> set[str]:
    """Return the names of the settings that are given as flags: `--model.latent-dim 4` gives
    `model.latent_dim`, `--model.no-spectral-norm` gives `model.spectral_norm`."""
    flags = [arg.split("=")[0] for arg in args if arg.startswith("--")]
    names = {flag.lstrip("-").replace("-", "_") for flag in flags}
    return names | {re.sub(r"(^|\.)no_", r"\1", name) for name in names}


def _split_objectives(
    args: Sequence[str], prog: str
) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """Return the values of every `--metric`, those of every `--mode`, and the other arguments:
    tyro takes a flag once."""
    parser = ArgumentParser(prog=prog, usage=SUPPRESS, add_help=False, allow_abbrev=False)
    parser.add_argument("--metric", action="append", default=[])
    parser.add_argument("--mode", action="append", default=[])
    found, rest = parser.parse_known_args(args)
    return found.metric, found.mode, rest
