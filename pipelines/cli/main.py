"""The command line: what is typed becomes a config, a config becomes a call.

`genpipe --help` and a mistyped command must answer at once, so torch, Ray and MLflow are
imported by the command that needs them, and not before.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NoReturn

import gen_models
from gen_models.core.errors import InputError, require

if TYPE_CHECKING:
    from pipelines.config.run import Run

EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED = 1, 2, 130

_HELP = """\
usage: genpipe COMMAND …

Train families of image generative models on a Ray cluster, search their hyperparameters,
record everything in MLflow.

  train FAMILY     train one config, on one worker or several
  search FAMILY    search many configs, register the best
  confirm RUN      train a recorded config again with other seeds: was it good, or lucky?
  evaluate MODEL   measure a model on the test split: the numbers to report
  sample MODEL     make pictures, or an .npz, from a run, a registered model or a checkpoint
  runs             what is recorded
  best FAMILY      the best recorded config, and the command that runs it again
  browse           open MLflow's page on this machine
  submit -- …      run a command as a job on a Ray cluster

families: {families}
`genpipe COMMAND --help` lists a command's settings; of train and search, with the family:
`genpipe search vae --help`.
"""


def run() -> NoReturn:
    """The program: `main`, and then the end of the process at once. To take torch, Ray and MLflow
    apart object by object, as Python does, takes seconds."""
    code = main()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code: 0, 1 where it failed, 2 where the input is wrong."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(_HELP.format(families=", ".join(gen_models.names())))
        return 0
    try:
        return _command(args[0])(args[1:])
    except InputError as error:
        print(f"genpipe {args[0]}: error: {error}", file=sys.stderr)
        return EXIT_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _command(name: str) -> Callable[[list[str]], int]:
    commands = {
        "train": _train,
        "search": _search,
        "confirm": _confirm,
        "evaluate": _evaluate,
        "sample": _sample,
        "runs": _runs,
        "best": _best,
        "browse": _browse,
        "submit": _submit,
    }
    if name not in commands:
        near = get_close_matches(name, commands, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise InputError(f"unknown command {name!r}{hint}: expected one of {', '.join(commands)}")
    return commands[name]


# -- train, search, confirm -----------------------------------------------------------------
def _train(args: list[str]) -> int:
    run = parse_run("train", args)
    if run is None or _dry(run):
        return 0
    from pipelines.report.console import show_train
    from pipelines.training.run import train

    result = train(run)  # type: ignore[arg-type]
    show_train(result)
    return _end(run, result)


def _search(args: list[str]) -> int:
    run = parse_run("search", args)
    if run is None or _dry(run):
        return 0
    from pipelines.report.console import show_search
    from pipelines.tuning.search import search

    result = search(run)  # type: ignore[arg-type]
    show_search(result, run.store)
    return _end(run, result)


def _confirm(args: list[str]) -> int:
    settings = _parse("Confirm", "confirm", args)
    require(settings.seeds >= 2, "seeds", settings.seeds, "an integer of at least 2")
    from pipelines.tuning.replication import as_search

    run = as_search(settings)
    if _dry(run):
        return 0
    from pipelines.report.console import show_confirmation
    from pipelines.tuning.search import search

    result = search(run)
    show_confirmation(result, run.store)
    return _end(run, result)


def parse_run(command: str, args: Sequence[str]) -> Run | None:
    """The config that `genpipe train …` or `genpipe search …` means; None if it asks for help.

    Raises `InputError`; tyro exits with 2 at a flag or value that is wrong.
    """
    families = ", ".join(gen_models.names())
    if not args or args[0] in ("-h", "--help"):
        print(f"usage: genpipe {command} FAMILY …\n\nfamilies: {families}")
        print(f"`genpipe {command} FAMILY --help` lists the settings.")
        if not args:
            raise InputError(f"FAMILY is missing: expected one of {families}")
        return None
    gen_models.family(args[0])
    import tyro

    from pipelines.config.objectives import split_objectives, with_objectives
    from pipelines.config.run import Search, Train, defaults

    prog = f"genpipe {command} {args[0]}"
    metrics, modes, rest = split_objectives(args[1:], prog)
    default = defaults(Search if command == "search" else Train, args[0])
    default = with_objectives(default, metrics, modes)
    run: Run = tyro.cli(type(default), args=rest, default=default, prog=prog)
    if isinstance(run, Search):
        return _with_fixed(run, args[1:])
    return run


def _with_fixed(run: Any, args: Sequence[str]) -> Run:
    """Note which settings of the space were given: they are not searched."""
    from dataclasses import replace

    from gen_models.core.config import flatten
    from tune_spaces import space

    given = {arg.split("=")[0].lstrip("-").replace("-", "_") for arg in args if arg[:2] == "--"}
    fixed = tuple(name for name in flatten(space(run.family).domains) if name in given)
    found: Run = replace(run, fixed=fixed)
    return found


def _dry(run: Run) -> bool:
    if run.dry_run:
        from pipelines.report.console import dry_run

        print(dry_run(run))
    return run.dry_run


def _end(settings: Any, result: dict[str, Any]) -> int:
    if settings.json:
        print(json.dumps(result))
    endings = {"completed": 0, "interrupted": EXIT_INTERRUPTED}
    return endings.get(result.get("outcome", "completed"), EXIT_FAILED)


def _evaluate(args: list[str]) -> int:
    settings = _parse("Evaluate", "evaluate", args)
    from pipelines.catalog.evaluation import assess
    from pipelines.report.console import show_evaluation

    result = assess(settings)
    show_evaluation(result)
    return _end(settings, result)


# -- what is recorded --------------------------------------------------------------------------
def _parse(kind: str, command: str, args: Sequence[str]) -> Any:
    import tyro

    from pipelines.config import requests

    return tyro.cli(getattr(requests, kind), args=args, prog=f"genpipe {command}")


def _sample(args: list[str]) -> int:
    settings = _parse("Sample", "sample", args)
    from pipelines.catalog.runs import sample_model

    result = sample_model(settings)
    print(f"{result['num']} samples of {settings.model}: {result['path']}")
    return _end(settings, result)


def _runs(args: list[str]) -> int:
    settings = _parse("Runs", "runs", args)
    from pipelines.catalog.runs import runs
    from pipelines.report.console import show_runs

    found = runs(settings.store, settings.tracking_uri, settings.experiment, settings.num)
    show_runs(found)
    return _end(settings, {"runs": found})


def _best(args: list[str]) -> int:
    settings = _parse("Best", "best", args)
    gen_models.family(settings.family)
    from pipelines.catalog.runs import best
    from pipelines.report.console import show_best

    result = best(
        settings.family,
        settings.store,
        settings.tracking_uri,
        settings.data,
        settings.metric,
        settings.num,
    )
    show_best(result)
    return _end(settings, result)


def _browse(args: list[str]) -> int:
    settings = _parse("Browse", "browse", args)
    from pipelines.catalog.runs import serve

    return serve(settings.store, settings.tracking_uri, settings.port)


# -- submit ------------------------------------------------------------------------------------
def _submit(args: list[str]) -> int:
    at = args.index("--") if "--" in args else len(args)
    settings, command = _parse("Submit", "submit", args[:at]), args[at + 1 :]
    if not command:
        raise InputError("no command to submit: expected one after --, as in -- search vae")
    if command[0] not in ("train", "search", "confirm"):
        raise InputError(f"cannot submit {command[0]!r}: expected train, search or confirm")
    if command[0] == "confirm":
        _parse("Confirm", "confirm", command[1:])
    else:
        parse_run(command[0], command[1:])
    from pipelines.cluster.jobs import submit

    return submit(
        command,
        address=settings.address,
        wait=settings.wait,
        working_dir=settings.working_dir,
        submission_id=settings.submission_id,
    ).exit_code
