"""The program `genpipe`: finds the command, and turns errors into exit codes.

`genpipe --help` and a mistyped command answer at once, so torch, Ray and MLflow are imported by
the command that needs them.
"""

from __future__ import annotations

import ast
import atexit
import errno
import io
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, NoReturn

import gen_models
import pipelines
from gen_models.core.errors import InputError, did_you_mean, shown
from pipelines.cli import commands
from pipelines.cli.commands import names
from pipelines.cluster import signals
from pipelines.store.files import FULL, LeaseLostError
from pipelines.store.secrets import RedactedStream, hide, hide_notice_urls, redact

EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED, EXIT_BROKEN_PIPE = 1, 2, 130, 141

_HELP = """\
usage: genpipe COMMAND …

Train families of image generative models on a Ray cluster, search their hyperparameters,
record everything in MLflow.

{commands}

families: {families}
`genpipe COMMAND --help` lists a command's settings; those of train and search depend on the
family: `genpipe search vae --help`. Every command takes --quiet (warnings only) and --verbose.
`genpipe --version` prints the version.
"""
_MESSAGE = 2000
"""Characters of a message: its beginning says what is wrong, whatever the user gave."""
_PROGRAM = 60
_OF_GIVEN_PATHS = (
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG),
)
"""What a path that is wrong, or may not be written, raises: the message names it."""
_VERBOSITY = {"--quiet": logging.WARNING, "--verbose": logging.DEBUG}


def run() -> NoReturn:
    """Run the program, and end the process at once: Python would take seconds to take torch, Ray
    and MLflow apart object by object. Whatever is printed, tracebacks too, has no secrets."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):  # where a terminal knows ASCII only
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, RedactedStream(stream))
    with signals.handled_signals():
        code = main()
        with signals.deferred():
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 if it failed, 2 if the input is wrong, 128 + n
    if signal n interrupted it: 130 for Ctrl-C, 143 for SIGTERM."""
    given = sys.argv[1:] if argv is None else argv
    level, args = _split_verbosity([hide(each) for each in hide_notice_urls(given)])
    program = " ".join(["genpipe", *args[:1]])
    try:
        if not args or args[0] in ("-h", "--help"):
            print(help_text())
            return 0
        if args[0] == "--version":
            print(f"genpipe {pipelines.__version__}")
            return 0
        code = _run_command(args[0], args[1:], level)
        return signals.exit_code() if code == EXIT_INTERRUPTED else code
    except InputError as error:
        text = redact(str(error))
        shortened = f"{text[:_MESSAGE]}…" if len(text) > _MESSAGE else text
        print(f"{program[:_PROGRAM]}: error: {shortened}", file=sys.stderr)
        return EXIT_INPUT
    except BrokenPipeError:  # as of `genpipe search vae --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except (ConnectionError, LeaseLostError) as error:
        print(redact(f"{program}: {error}"), file=sys.stderr)
        return EXIT_FAILED
    except OSError as error:
        if error.errno in FULL:
            rest = "make room there, and run the command again: what was written before is whole"
            print(redact(f"{program}: error: {error}: {rest}"), file=sys.stderr)
            return EXIT_FAILED
        if error.errno not in _OF_GIVEN_PATHS:
            raise
        print(redact(f"{program}: error: {shown(str(error))}"), file=sys.stderr)
        return EXIT_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return signals.exit_code()


def _run_command(name: str, args: list[str], level: int) -> int:
    module = command(name)
    from pipelines.report.console import set_verbosity  # light: --help need not load rich's tables

    set_verbosity(level)
    code: int = module.main(args)
    return code


def command(name: str) -> ModuleType:
    """Return the module of a command. Raises `InputError` if there is none of this name."""
    if name not in names():
        hint = did_you_mean(name, names())
        raise InputError(
            f"unknown command {shown(name)}{hint}: expected one of {', '.join(names())}"
        )
    return import_module(f"{commands.__name__}.{name}")


def help_text() -> str:
    """Return the text of `genpipe --help`."""
    described = sorted(map(describe, names()), key=lambda each: each.order)
    width = max(len(each.usage) for each in described)
    lines = [f"  {each.usage:<{width}}  {each.summary}" for each in described]
    return _HELP.format(commands="\n".join(lines), families=", ".join(gen_models.names()))


class Description(NamedTuple):
    """What the help shows of a command."""

    order: int
    usage: str
    summary: str


def describe(name: str) -> Description:
    """Return what a command's module says of it. Reads the source and does not import it, because
    its settings need imports that take a second."""
    tree = ast.parse((Path(commands.__path__[0]) / f"{name}.py").read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "(ORDER, USAGE)":
            order, usage = ast.literal_eval(node.value)
            summary = (ast.get_docstring(tree) or "").splitlines()[0].rstrip(".")
            return Description(order, usage, summary)
    raise SyntaxError(f"the command {name} assigns no ORDER, USAGE")


def _split_verbosity(args: list[str]) -> tuple[int, list[str]]:
    """Return the level of the log messages to show, and the other arguments. What follows `--`
    belongs to another command."""
    at = args.index("--") if "--" in args else len(args)
    own, rest = args[:at], args[at:]
    levels = [_VERBOSITY[arg] for arg in own if arg in _VERBOSITY]
    return (levels or [logging.INFO])[-1], [a for a in own if a not in _VERBOSITY] + rest
