"""The console: log lines on stderr by verbosity, results on stdout."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from support.journals import ELBO_MAX, FD, FD_MIN, METRIC
from support.results import (
    SEEDS,
    STUDY,
    best_result,
    evaluation_result,
    recorded_run,
    rerun_result,
    runs_result,
    search_result,
    train_result,
    trial_row,
)

from pipelines.report.console import (
    ConsoleHandler,
    ensure_logging,
    set_verbosity,
    show_best,
    show_evaluation,
    show_rerun,
    show_runs,
    show_samples,
    show_search,
    show_train,
)
from pipelines.report.results import EdgeSetting, RunsResult, SampleResult

NAMES = ("pipelines", "gen_models")
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def unconfigured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The project's loggers have no handler, as in a new process; afterwards all is as it was."""
    before = [(logger := logging.getLogger(name), logger.level) for name in NAMES]
    for logger, _ in before:
        monkeypatch.setattr(logger, "handlers", [])
    yield
    for logger, level in before:
        logger.setLevel(level)


@contextmanager
def bare_root() -> Iterator[None]:
    """The root logger has no handler for the block: pytest's are among them during a test."""
    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    try:
        yield
    finally:
        root.handlers = before


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


def log_at_each_level(name: str = "pipelines.training.run") -> None:
    log = logging.getLogger(name)
    log.debug("some detail")
    log.info("epoch 3/20 [bold]")
    log.warning("no tracker")


def handlers() -> list[logging.Handler]:
    return [handler for name in NAMES for handler in logging.getLogger(name).handlers]


# -- logging -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (logging.WARNING, ["warning: no tracker"]),
        (logging.INFO, ["epoch 3/20 [bold]", "warning: no tracker"]),
        (logging.DEBUG, ["some detail", "epoch 3/20 [bold]", "warning: no tracker"]),
    ],
)
@pytest.mark.parametrize("name", ["pipelines.training.run", "gen_models.core.rng"])
def test_messages_from_a_level_on_are_shown_on_stderr(
    level: int, expected: list[str], name: str, unconfigured: None, capsys: Capture
) -> None:
    set_verbosity(level)
    log_at_each_level(name)
    logging.getLogger("another.package").error("not ours")
    out, err = capsys.readouterr()
    assert err.splitlines() == expected and out == ""


def test_a_message_is_shown_once_however_often_verbosity_is_set(
    unconfigured: None, capsys: Capture
) -> None:
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        set_verbosity(level)
    log_at_each_level()
    assert capsys.readouterr().err == "warning: no tracker\n"


def test_a_long_message_stays_on_one_line(unconfigured: None, capsys: Capture) -> None:
    set_verbosity(logging.INFO)
    logging.getLogger("pipelines").info("x " * 300)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_program_that_configured_nothing_sees_progress(
    unconfigured: None, capsys: Capture
) -> None:
    with bare_root():
        ensure_logging()
    assert len(handlers()) == 2 and all(isinstance(h, ConsoleHandler) for h in handlers())
    log_at_each_level()
    assert capsys.readouterr().err.splitlines() == ["epoch 3/20 [bold]", "warning: no tracker"]


@pytest.mark.parametrize("name", ["", *NAMES])
def test_a_program_that_configured_logging_is_left_alone(name: str, unconfigured: None) -> None:
    given = logging.NullHandler()
    levels = [logging.getLogger(each).level for each in NAMES]
    with bare_root():
        logging.getLogger(name or None).addHandler(given)
        ensure_logging()
    assert [h for h in handlers() if h is not given] == []
    assert [logging.getLogger(each).level for each in NAMES] == levels


def test_a_command_s_verbosity_is_kept(unconfigured: None) -> None:
    set_verbosity(logging.WARNING)
    with bare_root():
        ensure_logging()
    assert logging.getLogger("pipelines").level == logging.WARNING and len(handlers()) == 2


# -- results -------------------------------------------------------------------------------------
def test_a_run_is_shown(capsys: Capture) -> None:
    show_train(train_result())
    out, err = capsys.readouterr()
    assert "vae-1: completed after epoch 3" in out
    assert f"best {METRIC} -1.5 at epoch 2" in out
    assert f"  {METRIC} -1.5" in out and "train/loss" not in out
    assert "MLflow run  abc in vae-digits, sqlite:////s/mlflow.db" in out
    assert err == "" and "NO MODEL" not in out


def test_a_run_without_a_value_is_shown(capsys: Capture) -> None:
    show_train(train_result(value=None, outcome="diverged", metrics={}))
    assert "best" not in capsys.readouterr().out.replace("vae-digits", "")


def test_a_model_that_could_not_be_exported_is_said(capsys: Capture) -> None:
    line = "NO MODEL: the checkpoint could not be exported as an MLflow model: no pt2"
    show_train(train_result(model_error="no pt2"))
    assert line in capsys.readouterr().out.splitlines()
    show_search(search_result(champion=trial_row(model_error="no pt2")), "runs")
    assert line in capsys.readouterr().out.splitlines()


def test_a_search_is_shown(capsys: Capture) -> None:
    rows = (
        trial_row("good", confirmed=SEEDS, version="3"),
        trial_row("wild", outcome="diverged", value=None, values={METRIC: None}),
    )
    show_search(search_result(champion=rows[0], ranking=rows), "my runs")
    lines = capsys.readouterr().out.splitlines()
    table = [line.split() for line in lines[:3]]
    assert table[0] == [
        *("rank", "trial", "outcome", "epochs", METRIC, "mean", "std", "optim.lr"),
    ]
    assert table[1] == ["1", "good", "stopped", "3", "-1.5", "-2.5", "0.7", "0.1"]
    assert table[2] == ["2", "wild", "diverged", "3", "0.1"]
    assert "champion: trial good, epoch 2" in lines and "  optim.lr = 0.1" in lines
    assert "model     models:/vae-digits/3" in lines
    assert lines[-1].endswith(" browse --store 'my runs'") and lines[-1].startswith("browse ")


def test_the_end_of_a_search_shows_the_top_20_and_the_front_in_80_columns(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("latent_dim", "hidden", "gradient_penalty", "r1_penalty", "kl_weight", "free_bits")
    rows = tuple(
        trial_row(
            f"{number:08x}",
            values={METRIC: -1.2345678 * number},
            config={f"model.{name}": 0.00034618 * number for name in names},
        )
        for number in range(1, 101)
    )
    monkeypatch.setenv("COLUMNS", "80")
    show_search(search_result(champion=rows[0], ranking=rows, pareto=(rows[49],)), "runs")
    lines = capsys.readouterr().out.splitlines()
    end = next(i for i, line in enumerate(lines) if line.startswith("no room for: "))
    table = [line for line in lines[:end] if "stopped" in line]
    assert max(map(len, lines[:end])) <= 80 and len(table) == 21
    assert [line.split()[0] for line in table] == [*map(str, range(1, 21)), "50"]
    assert "-1.2346" in table[0] and "0.00034618" in table[0] and "00000001" in table[0]
    assert lines[end].endswith("model.free_bits") and "and 79 more" in lines[end + 1]
    assert "champion: trial 00000001, epoch 2" in lines
    assert sum(line.startswith("  model.") for line in lines) == len(names)


def test_recorded_runs_fit_80_columns_with_short_ids(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    first = recorded_run(run_id="0123456789abcdef" * 2, name="vae-20261130-004326-bfb0")
    show_runs(runs_result(first, recorded_run(run_id="f" * 32, kind="confirmation")))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["01234567", first.name, "run", "completed", "3", "-1.5"]
    assert lines[-1] == f"of all: experiment vae-digits, metric {METRIC}, key "
    show_runs(RunsResult(runs=()), filtered=True)
    assert capsys.readouterr().out == "no such run is recorded\n"


def test_reasons_of_failed_trials_are_shown(capsys: Capture) -> None:
    failures = {"no memory": 2, "the fused worker died": 1}
    show_search(search_result(ranking=(trial_row(),), failures=failures), "runs")
    said = capsys.readouterr().out
    assert "FAILED: 2 trials: no memory\nFAILED: 1 trial: the fused worker died\n" in said
    assert "NO RESULT" not in said
    row = trial_row(value=None, outcome="diverged")
    show_search(search_result(ranking=(row, row)), "runs")
    assert f"NO RESULT: no trial has a value of {METRIC}: 2 diverged" in capsys.readouterr().out


def test_a_pareto_front_is_marked(capsys: Capture) -> None:
    rows = tuple(trial_row(name, values={METRIC: -1.5, FD: 2.0}) for name in ("a", "b"))
    result = search_result(
        champion=rows[0], ranking=rows, pareto=rows[:1], objectives=(ELBO_MAX, FD_MIN)
    )
    show_search(result, "runs")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["1", "*", "a"] and lines[2].split()[:2] == ["2", "b"]
    assert f"Pareto front (*): 1 trials, of {METRIC} (max), {FD} (min)" in lines


def test_a_champion_of_a_seed_study_names_its_config_s_trial(capsys: Capture) -> None:
    show_search(search_result(champion=trial_row("seed-3", of="t0")), "runs")
    assert "the median seed's model, of the config of trial t0" in capsys.readouterr().out


def test_a_value_at_an_edge_of_the_space_is_said_with_the_flag_that_widens_it(
    capsys: Capture,
) -> None:
    flag = "--space 'optim.lr=loguniform(0.0001, 0.1)'"
    edge = EdgeSetting(
        name="optim.lr", value=0.0099, edge="upper", range="0.0001 to 0.01", flag=flag
    )
    show_search(search_result(champion=trial_row("a"), edges=(edge,)), "runs")
    text = capsys.readouterr().out
    assert "optim.lr = 0.0099 lies at the upper end of 0.0001 to 0.01:" in text
    assert f"{flag} widens it" in text


def test_a_search_without_trials_is_shown(capsys: Capture) -> None:
    show_search(search_result(outcome="interrupted"), "runs")
    assert "champion" not in capsys.readouterr().out


def test_a_seed_study_is_shown(capsys: Capture) -> None:
    show_search(search_result(seed_study=STUDY, seed_statistics=SEEDS, seeds_beaten=1), "runs")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"lucky: {METRIC} (max) over 2 seeds, 1 more were lost"
    assert "  mean      -2.5, standard error 0.5" in lines
    assert "  worst     -3" in lines
    assert "  recorded  -1.25, better than 1 of these seeds" in lines
    show_search(search_result(seed_study=STUDY), "runs")
    text = capsys.readouterr().out
    assert f"lucky: fewer than two seeds have a value of {METRIC}" in text
    assert "recorded" not in text


def test_an_evaluation_and_samples_are_shown(capsys: Capture) -> None:
    show_evaluation(evaluation_result())
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "vae-1, run abc",
        "  test/fd 1.5",
        "  test_digest d",
        "  samples /s/x.png",
    ]
    show_samples(SampleResult(path="/a.png", num=4, seed=0, family="vae"), "vae@champion")
    assert capsys.readouterr().out == "4 samples of vae@champion: /a.png\n"


def test_recorded_runs_are_shown(capsys: Capture) -> None:
    show_runs(runs_result())
    head, line = capsys.readouterr().out.splitlines()
    names = ["run", "name", "experiment", "kind", "outcome", "epoch", "metric", "value"]
    names.append("key")
    assert head.split() == names
    cells = ["abc", "vae-1", "vae-digits", "run", "completed", "3", METRIC, "-1.5"]
    assert line.split() == cells
    show_runs(RunsResult(runs=()))
    assert capsys.readouterr().out == "nothing is recorded here yet\n"


def test_the_best_runs_are_shown(capsys: Capture) -> None:
    show_best(best_result())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "name", "outcome", METRIC]
    assert [line.split()[0] for line in lines[1:3]] == ["abc", "def"]
    assert "  model.latent_dim = 16" in lines and "  optim.lr = 0.1" in lines
    assert f"  best/{METRIC} -1.5" in lines
    assert lines[-1] == "train it again:  genpipe train vae"


def test_what_was_interrupted_is_shown_with_the_command_that_resumes_it(capsys: Capture) -> None:
    command = "genpipe search vae --resume s --store runs"
    show_best(replace(best_result(), resume={"s": command}))
    show_runs(RunsResult(runs=best_result().ranking, resume={"s": command}))
    out = capsys.readouterr().out
    assert out.count(f"s was interrupted; resume it:  {command}\n") == 2


def test_a_repetition_is_equal_or_says_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    show_rerun(rerun_result())
    out = capsys.readouterr().out
    assert "vae-1: differs, from /s/runs/vae-1/journal" in out
    assert "1 of 12 values differ" in out and "2 of 3 digests of weights differ" in out
    assert "the first: val/elbo at epoch 2: -1.5 is recorded, -1.25 here" in out
    assert "version.torch: 2.11.0 is recorded, 2.15.0 here" in out
    same = {"equal": True, "different_values": 0, "first_difference": None}
    show_rerun(rerun_result(**same, circumstances={}))
    out = capsys.readouterr().out
    assert "vae-1: equal" in out and "the first" not in out
