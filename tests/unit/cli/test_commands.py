"""The commands as modules, verbosity, and exit codes."""

import json
import logging
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from support.pipeline import Capture, refused
from support.results import search_result, train_result, trial_row

import pipelines
from gen_models.core.errors import InputError
from pipelines.cli import commands, main
from pipelines.cli.commands.runs import Runs
from pipelines.cli.parsing import parse_settings
from pipelines.config.run import Train, defaults
from pipelines.report import console

NAMES = [module.name for module in pkgutil.iter_modules(commands.__path__)]


@pytest.fixture(params=NAMES)
def command(request: pytest.FixtureRequest) -> ModuleType:
    return import_module(f"{commands.__name__}.{request.param}")


@pytest.fixture
def loggers() -> Iterator[list[logging.Logger]]:
    """The project's loggers, without handlers before and after the test."""
    found = [logging.getLogger(name) for name in ("pipelines", "gen_models")]
    before = [(logger.level, logger.handlers[:]) for logger in found]
    for logger in found:
        logger.handlers.clear()
    yield found
    for logger, (level, handlers) in zip(found, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers


def test_a_command_has_what_the_help_shows(command: ModuleType) -> None:
    name = command.__name__.rpartition(".")[2]
    assert callable(command.main)
    described = main.describe(name)
    assert (described.order, described.usage) == (command.ORDER, command.USAGE)
    assert described.usage.split()[0] == name
    assert f"{described.summary}." in (command.__doc__ or "") or "?" in described.summary
    line = next(line for line in main.help_text().splitlines() if line.split()[:1] == [name])
    assert described.summary in line


def test_commands_stand_in_the_order_that_they_give() -> None:
    orders = [main.describe(name).order for name in NAMES]
    assert len(set(orders)) == len(NAMES)
    text = main.help_text()
    by_order = sorted(NAMES, key=lambda name: main.describe(name).order)
    places = [text.index(f"\n  {main.describe(name).usage}") for name in by_order]
    assert places == sorted(places)


def test_the_version(capsys: Capture) -> None:
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"genpipe {pipelines.__version__}\n"


def test_the_store_and_the_tracking_uri_are_those_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENPIPE_STORE", str(tmp_path / "shared"))
    assert f"store = '{tmp_path}/shared'" in refused(["runs"], capsys)
    assert f"store = '{tmp_path}/own'" in refused(["runs", "--store", "own"], capsys)
    assert parse_settings(Runs, "runs", []).store == tmp_path / "shared"
    assert defaults(Train, "vae").store == tmp_path / "shared"
    with pytest.raises(InputError, match=f"{tmp_path}/shared"):
        pipelines.status("nothing")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "wrong://mlflow")
    assert "tracking_uri = 'wrong://mlflow'" in refused(["runs"], capsys)
    monkeypatch.setenv("GENPIPE_TRACKING_URI", "wrong://ours:planted@host")
    said = refused(["runs"], capsys)
    assert "tracking_uri = 'wrong://ours@host'" in said and "planted" not in said
    assert "tracking_uri = 'wrong://given'" in refused(
        ["runs", "--tracking-uri", "wrong://given"], capsys
    )
    assert not list(tmp_path.glob("runs"))


def test_the_help_of_a_command_exits_with_0(command: ModuleType, capsys: Capture) -> None:
    name = command.__name__.rpartition(".")[2]
    try:
        code = main.main([name, "--help"])
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 0 and name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "level"),
    [
        (["runs"], logging.INFO),
        (["runs", "--quiet"], logging.WARNING),
        (["--verbose", "runs"], logging.DEBUG),
        (["runs", "--quiet", "--verbose"], logging.DEBUG),
        # What follows -- belongs to the submitted command.
        (["submit", "--", "runs", "--quiet"], logging.INFO),
    ],
)
def test_verbosity_sets_the_level_of_our_loggers(
    args: list[str],
    level: int,
    loggers: list[logging.Logger],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tmp_path)  # where nothing is recorded
    refused(args, capsys)
    assert {logger.level for logger in loggers} == {level}
    assert all(
        [type(handler) for handler in logger.handlers] == [console.ConsoleHandler]
        for logger in loggers
    )


def test_quiet_hides_progress_and_not_warnings(
    loggers: list[logging.Logger], capsys: Capture
) -> None:
    console.set_verbosity(logging.WARNING)
    log = logging.getLogger("pipelines.tuning.search")
    log.info("progress")
    log.warning("trouble")
    assert capsys.readouterr().err.split() == ["warning:", "trouble"]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("epochs = 0: expected more"), 2, "genpipe runs: error: epochs = 0: expected"),
        (ConnectionError("the cluster is gone"), 1, "genpipe runs: the cluster is gone"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_become_exit_codes(
    error: BaseException,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    def fail(args: list[str]) -> int:
        raise error

    monkeypatch.setattr(import_module("pipelines.cli.commands.runs"), "main", fail)
    assert main.main(["runs"]) == code
    assert capsys.readouterr().err.startswith(message)


def test_an_error_of_ours_is_not_taken_for_the_user_s(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(args: list[str]) -> int:
        raise ValueError("a fault")

    monkeypatch.setattr(import_module("pipelines.cli.commands.runs"), "main", fail)
    with pytest.raises(ValueError, match="a fault"):
        main.main(["runs"])


def test_a_search_whose_champion_has_no_model_exits_with_1_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    champion = trial_row(model_error="the exporter does not know this network")
    result = search_result(champion=champion, ranking=(champion,))
    monkeypatch.setattr(import_module("pipelines.tuning.search"), "run_search", lambda *_: result)
    assert main.main(["search", "vae"]) == 1
    out = capsys.readouterr().out
    assert "NO MODEL" in out and "the exporter does not know this network" in out
    assert main.main(["search", "vae", "--json"]) == 1
    content = json.loads(capsys.readouterr().out)  # and nothing else
    assert content["champion"]["model_error"] == champion.model_error


def test_a_run_without_a_model_exits_with_1_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    result = train_result(model_error="the exporter does not know this network")
    monkeypatch.setattr(import_module("pipelines.training.run"), "train_config", lambda _: result)
    assert main.main(["train", "vae"]) == 1
    assert "NO MODEL" in capsys.readouterr().out
    assert main.main(["train", "vae", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["model_error"] == result.model_error
