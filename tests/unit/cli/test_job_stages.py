"""The stages of a job, stopped anywhere and run again: what is run, what is read, what is refused.

The commands are small ones of this file, run by the runner itself, with its state in a real store.
Those that train are in `tests/integration/test_job_files.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.pipeline import Capture

from gen_models.core.errors import InputError
from pipelines.cli.jobs import definition
from pipelines.cli.jobs.runner import run_job
from pipelines.cli.main import main
from pipelines.cli.parsing import RecordedSettings
from pipelines.cli.stages import Call, StageCommand
from pipelines.report.results import JobFileResult, Result
from pipelines.store.files import StoreError
from pipelines.store.layout import Store
from pipelines.store.lease import holding


@dataclass(frozen=True, kw_only=True)
class Add(RecordedSettings):
    """Add two numbers."""

    a: int
    b: int = 1
    address: str = ""


@dataclass(frozen=True, kw_only=True)
class Sum(Result):
    total: int
    code: int = 0

    @property
    def exit_code(self) -> int:
        return self.code


@dataclass
class Adder:
    """The command `add`: what it was called with, and what it does instead of adding."""

    calls: list[tuple[int, int, Call]] = field(default_factory=list)
    instead: dict[int, Callable[[], Sum]] = field(default_factory=dict)
    """By the value of `a`."""

    def run(self, settings: Add, call: Call) -> Sum:
        self.calls.append((settings.a, settings.b, call))
        if settings.a in self.instead:
            return self.instead[settings.a]()
        return Sum(total=settings.a + settings.b)

    def show(self, result: Sum, settings: Add) -> None:
        print(f"{settings.a} + {settings.b} = {result.total}")

    @property
    def called(self) -> list[int]:
        """The values of `a` of the calls since this was last read."""
        values = [a for a, _, _ in self.calls]
        self.calls.clear()
        return values


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Adder:
    monkeypatch.chdir(tmp_path)
    adder = Adder()
    command = StageCommand("add", Add, Sum, adder.run, adder.show)
    monkeypatch.setattr(definition, "stage_commands", lambda: {"add": command})
    return adder


STAGES = """\
stages:
  one: {command: add, a: 10}
  two: {command: add, a: 20, b: "${one.total}"}
  three: {command: add, a: 30, b: "${two.total}"}
"""


STAGE_NAMES = ("one", "two", "three")


def write(text: str = STAGES, name: str = "job.yaml") -> Path:
    path = Path(name)
    path.write_text(text)
    return path


def fail(error: BaseException) -> Callable[[], Sum]:
    def failing() -> Sum:
        raise error

    return failing


def totals(result: JobFileResult) -> dict[str, int]:
    return {name: stage.result["total"] for name, stage in result.stages.items()}


def test_stages_run_in_order_with_the_results_of_earlier_ones(add: Adder) -> None:
    result = run_job(write())
    assert totals(result) == {"one": 11, "two": 31, "three": 61}
    assert (result.job, result.store, result.left, result.exit_code) == ("job", "runs", (), 0)
    assert [(a, b) for a, b, _ in add.calls] == [(10, 1), (20, 11), (30, 31)]
    assert add.calls[1][2].given == {"a", "b"}
    ids = [call.search_id for _, _, call in add.calls]
    assert len(set(ids)) == 3 and all(
        f"job-{n}-" in i for n, i in zip(STAGE_NAMES, ids, strict=True)
    )


def test_what_has_ended_is_read_and_not_run_again(add: Adder) -> None:
    first = run_job(write())
    add.called  # noqa: B018
    again = run_job(write())
    assert add.called == []
    assert totals(again) == totals(first) and again.exit_code == 0
    assert [stage.is_new for stage in again.stages.values()] == [False] * 3


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), ConnectionError("gone"), StoreError("full"), ZeroDivisionError()],
)
def test_a_job_that_was_stopped_goes_on_with_the_same_search(
    error: BaseException, add: Adder
) -> None:
    add.instead[20] = fail(error)
    with pytest.raises(type(error)):
        run_job(write())
    before = add.calls[-1][2].search_id
    assert add.called == [10, 20]
    add.instead.clear()
    result = run_job(write())
    assert add.calls[0][2].search_id == before
    assert add.called == [20, 30] and totals(result) == {"one": 11, "two": 31, "three": 61}
    assert [stage.is_new for stage in result.stages.values()] == [False, True, True]


def test_a_stage_that_fails_stops_the_job_with_its_exit_code(add: Adder) -> None:
    add.instead[20] = lambda: Sum(total=0, code=130)
    result = run_job(write())
    assert (result.exit_code, result.left) == (130, ("three",))
    assert add.called == [10, 20]
    add.instead.clear()
    assert run_job(write()).exit_code == 0 and add.called == [20, 30]


def test_a_stage_that_may_fail_does_not_stop_the_job(add: Adder) -> None:
    text = STAGES.replace("a: 20", "a: 20, may_fail: true")
    add.instead[20] = lambda: Sum(total=5, code=1)
    result = run_job(write(text))
    assert result.exit_code == 1 and totals(result) == {"one": 11, "two": 5, "three": 35}
    assert add.called == [10, 20, 30]
    assert run_job(write(text)).exit_code == 1 and add.called == []

    add.instead[20] = lambda: Sum(total=5, code=130)  # what was interrupted has not failed
    assert run_job(write(text), anew=True).left == ("three",)


def test_a_stage_that_has_begun_keeps_its_settings(add: Adder) -> None:
    add.instead[20] = fail(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_job(write())
    add.called  # noqa: B018
    changes = {
        "one.a was 10 and is 11": STAGES.replace("a: 10", "a: 11"),
        "two.b was '${one.total}' and is 7": STAGES.replace('"${one.total}"', "7"),
        "one.b was not given and is 4": STAGES.replace("a: 10", "a: 10, b: 4"),
        "one is gone": STAGES.replace("  one: {command: add, a: 10}\n", "").replace(
            '"${one.total}"', "3"
        ),
    }
    for expected, text in changes.items():
        with pytest.raises(InputError, match=r"job = 'job': expected the stages with which") as no:
            run_job(write(text))
        assert expected in str(no.value) and "--anew" in str(no.value)
    assert add.called == []


def test_a_stage_that_has_begun_may_run_elsewhere(add: Adder) -> None:
    run_job(write())
    assert run_job(write(STAGES.replace("a: 10", "a: 10, address: there"))).exit_code == 0
    assert add.called == [10, 20, 30]


def test_stages_that_have_not_begun_may_change_and_follow(add: Adder) -> None:
    add.instead[20] = fail(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_job(write())
    add.instead.clear()
    more = (
        STAGES.replace("a: 30", "a: 31") + '  four: {command: add, a: 40, b: "${three.total}"}\n'
    )
    assert totals(run_job(write(more))) == {"one": 11, "two": 31, "three": 62, "four": 102}


def test_a_stage_that_was_refused_may_be_given_other_settings(add: Adder) -> None:
    """For nothing came of it."""
    add.instead[20] = fail(InputError("b = 11: expected less"))
    with pytest.raises(InputError, match=r"job.yaml, line 3: stage two: b = 11: expected less"):
        run_job(write())
    assert totals(run_job(write(STAGES.replace("a: 20", "a: 21"))))["two"] == 32
    assert add.called == [10, 20, 21, 30]


def test_a_search_that_was_begun_is_not_given_other_settings(add: Adder) -> None:
    def begin_and_fail() -> Sum:
        search = Store.at("runs").search(add.calls[-1][2].search_id)
        search.files.write(search.config, "{}")
        raise InputError("the store is not shared")

    add.instead[20] = begin_and_fail
    for text in (STAGES, STAGES.replace("a: 20", "a: 21")):
        with pytest.raises(InputError, match=r"not shared|two\.a was 20 and is 21"):
            run_job(write(text))
    assert add.called == [10, 20]


def test_anew_begins_with_the_first_stage(add: Adder) -> None:
    run_job(write())
    first = [call.search_id for _, _, call in add.calls]
    add.called  # noqa: B018
    assert totals(run_job(write(STAGES.replace("a: 10", "a: 11")), anew=True))["three"] == 62
    second = [call.search_id for _, _, call in add.calls]
    assert add.called == [11, 20, 30] and not set(first) & set(second)


def test_jobs_of_other_names_and_stores_are_others(add: Adder) -> None:
    path = write()
    for overrides in ({}, {"job": "other"}, {"store": "there"}):
        run_job(path, overrides)
        assert add.called == [10, 20, 30]
    assert run_job(write(name="renamed.yaml"), {"job": "other"}).stages and add.called == []


def test_two_commands_do_not_run_one_job(add: Adder) -> None:
    with (
        holding(Store.at("runs").job("job"), "job"),
        pytest.raises(InputError, match="job = 'job': expected one that no other command is work"),
    ):
        run_job(write())
    assert add.called == [] and run_job(write()).exit_code == 0


def test_a_result_that_is_lost_is_made_again(add: Adder) -> None:
    run_job(write())
    add.called  # noqa: B018
    folder = Store.at("runs").job("job")
    folder.result("two").write_text('{"total": 3')
    result = run_job(write())
    assert add.called == [20] and totals(result) == {"one": 11, "two": 31, "three": 61}


def test_a_damaged_state_is_named(add: Adder) -> None:
    run_job(write())
    path = Store.at("runs").job("job").stage("two")
    path.write_text('{"command"')
    with pytest.raises(InputError, match=rf"{path}: damaged"):
        run_job(write())
    assert totals(run_job(write(), anew=True))["two"] == 31


def test_a_job_is_recorded_as_it_was_run(add: Adder) -> None:
    path = write()
    run_job(path, {"one.b": 5, "job": "named"})
    recorded = Store.at("runs").job("named").job
    again = definition.read_job(recorded)
    assert again.name == "named" and again.stages[0].content == {"a": 10, "b": 5}


def test_no_secret_is_recorded(add: Adder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", "30303030")
    run_job(write("tracking_uri: http://u:planted-password@h\n" + STAGES), {"one.a": 30303030})
    texts = [p.read_text() for p in Path("runs/jobs/job").rglob("*") if p.is_file()]
    assert len(texts) > 6 and not any("planted-password" in text for text in texts)


def test_the_command_prints_each_result_and_how_the_stages_ended(
    add: Adder, capsys: Capture
) -> None:
    path = str(write())
    assert main(["run", path, "--set", "one.b=2"]) == 0
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if "+" in line]
    assert lines == ["10 + 2 = 12", "20 + 12 = 32", "30 + 32 = 62"]
    assert main(["run", path, "--set", "one.b=2", "--anew", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)  # and nothing else
    assert result["stages"]["three"]["result"]["total"] == 62 and result["left"] == []

    add.instead[20] = lambda: Sum(total=0, code=1)
    assert main(["run", path, "--anew"]) == 1
    out = capsys.readouterr().out
    assert "two              ended with exit code 1" in out and "three            not begun" in out
    assert main(["run", path, "--anew", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["left"] == ["three"]


def test_a_single_command_needs_no_stages(add: Adder, capsys: Capture) -> None:
    path = str(write("command: add\na: 3\n", "single.yaml"))
    assert main(["run", path]) == 0
    assert capsys.readouterr().out == "3 + 1 = 4\n"
    assert main(["run", path]) == 0
    assert "add              done before" in capsys.readouterr().out and add.called == [3]
    state: dict[str, Any] = json.loads(Path("runs/jobs/single/stages/add.json").read_text())
    assert state["search_id"].startswith("single-2") and state["exit_code"] == 0
