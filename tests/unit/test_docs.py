"""The documentation says what the code does: generated files, links, paths and commands."""

import dataclasses
import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.results import progress, rerun_result

from docs.generate import FILES, FOLDER
from pipelines.analysis.seeds import SeedStatistics
from pipelines.cli.main import command
from pipelines.cli.parsing import parse_run, parse_settings
from pipelines.config.objectives import Objective
from pipelines.config.run import Train
from pipelines.config.search import Search, SeedStudy
from pipelines.report.results import (
    RESULTS,
    BestResult,
    EdgeSetting,
    EvaluationResult,
    Failure,
    JobFileResult,
    RecordedRun,
    ReportedSearch,
    ReportResult,
    Result,
    RunsResult,
    SampleResult,
    SearchResult,
    StageResult,
    StatusResult,
    StopResult,
    StudySummary,
    SyncResult,
    TrainResult,
    TrialRow,
)

ROOT = FOLDER.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted(FOLDER.glob("*.md")),
    ROOT / "benchmarks" / "README.md",
]
OURS = (
    "gen_models",
    "tune_spaces",
    "pipelines",
    "tests",
    "docs",
    "deploy",
    "benchmarks",
    "examples",
)
"""Folders whose files the pages name."""
PLACEHOLDERS = ("NAME", "…", "*", "<")

OBJECTIVE = Objective("val/nll/iw8", "min")
STUDY = SeedStudy(run="r1", name="vae-1", search_id="s1", data_digest="d", value=24.0)
STATISTICS = SeedStatistics.of([23.0, 24.0, None], OBJECTIVE)
ROW = TrialRow(
    trial_id="t1",
    outcome="stopped_early",
    epochs=3,
    value=23.9,
    best_epoch=2,
    confirmed=STATISTICS,
    config={"model.latent_dim": 4, "optim.lr": 1e-3},
    metrics={"val/nll/iw8": 23.9},
    values={"val/nll/iw8": 23.9, "val/fd": None},
    checkpoint="/runs/c",
    run_id=None,
    model=None,
    version=None,
)
RUN = RecordedRun(
    **dict.fromkeys(("run_id", "name", "experiment", "kind", "search_id", "trial_id"), "x"),
    **dict.fromkeys(("status", "outcome", "metric", "rerun", "started"), "x"),
    epoch=3,
    value=None,
    params={"seed": "0"},
    metrics={"best/val/fd": 1.0},
)
EXAMPLES: list[Result] = [
    TrainResult(
        **dict.fromkeys(("name", "experiment", "tracking_uri", "metric"), "x"),
        run_id=None,
        outcome="completed",
        epoch=2,
        value=1.0,
        best_epoch=1,
        metrics={"val/fd": 1.0},
        checkpoint=None,
        samples=None,
        model={"hidden": (512,)},
        optim={"lr": 1e-3, "betas": (0.9, 0.999)},
    ),
    SearchResult(
        **dict.fromkeys(("search_id", "experiment", "tracking_uri"), "x"),
        run_id="r",
        outcome="completed",
        metric=OBJECTIVE.metric,
        mode=OBJECTIVE.mode,
        objectives=(OBJECTIVE, Objective("val/fd", "min")),
        champion=ROW,
        ranking=(ROW,),
        pareto=(ROW,),
        samples=None,
        report="/report.html",
        seed_study=STUDY,
        seed_statistics=STATISTICS,
        seeds_beaten=1,
        studies={
            "t1": StudySummary(
                search_id="s",
                run_id=None,
                outcome="interrupted",
                seed_study=STUDY,
                seed_statistics=None,
                seeds_beaten=None,
            )
        },
    ),
    EvaluationResult(run_id="r", name="x", metrics={"test/fd": 1.0}, tags={"a": "b"}, pictures={}),
    SampleResult(path="/samples.png", num=64, seed=0, family="vae"),
    RunsResult(runs=(RUN,)),
    BestResult(metric="val/fd", mode="min", data="digits", ranking=(RUN,), rerun="genpipe train"),
    SyncResult(
        tracking_uri="u", runs=2, evaluations=1, failed=(Failure(name="runs/a", reason="damaged"),)
    ),
    rerun_result(),
    JobFileResult(
        job="j",
        store="runs",
        stages={"a": StageResult(command="best", exit_code=0, is_new=True, result={"data": "x"})},
        left=("b",),
    ),
    ReportResult(
        path="/report.html",
        searches=(
            ReportedSearch(
                search_id="s",
                outcome=None,
                trials=3,
                metric=OBJECTIVE.metric,
                mode=OBJECTIVE.mode,
                best_trial="t1",
                value=23.9,
                config={"optim.lr": 0.01},
                edges=(
                    EdgeSetting(
                        name="optim.lr", value=0.01, edge="upper", range="1 to 2", flag="--space"
                    ),
                ),
                importance={"optim.lr": 1.0},
                importance_trials=60,
                device_hours=0.5,
                epochs=12,
                saved_epochs=3,
            ),
        ),
    ),
    StopResult(name="s", asked="stopped by", outcome="", ended_by="", resume="genpipe search"),
    StatusResult(runs=(progress(), progress(value=None, until="", seconds_left=None))),
]


@pytest.mark.parametrize("name", FILES)
def test_a_generated_file_is_up_to_date(name: str) -> None:
    written = (FOLDER / name).read_text(encoding="utf-8")
    assert written == FILES[name](), "run `make docs`"


def schema() -> Any:
    return json.loads((FOLDER / "results.schema.json").read_text(encoding="utf-8"))


def test_there_is_an_example_of_every_result() -> None:
    assert {type(example) for example in EXAMPLES} == set(RESULTS)


@pytest.mark.parametrize("result", EXAMPLES, ids=lambda result: type(result).__name__)
def test_a_result_is_of_the_schema(result: Result) -> None:
    content = json.loads(result.to_json())
    jsonschema.validate(content, schema())
    of_kind = {"$ref": f"#/$defs/{type(result).__name__}", "$defs": schema()["$defs"]}
    jsonschema.validate(content, of_kind)
    del content[dataclasses.fields(result)[0].name]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, of_kind)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    inside = [link for link in links if "://" not in link]
    assert [link for link in inside if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_in_the_text_are_those_of_files(page: Path) -> None:
    ours = "|".join(OURS)
    quoted = re.findall(rf"`((?:{ours})/[^`\s:]*)`", page.read_text(encoding="utf-8"))
    named = [path for path in quoted if not any(mark in path for mark in PLACEHOLDERS)]
    assert [path for path in named if not (ROOT / path).exists()] == []


def commands() -> list[str]:
    """Return the lines of the pages' shell blocks that call genpipe, without comments."""
    blocks = [
        block
        for page in PAGES
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    ]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("genpipe ")]


def test_the_pages_have_commands() -> None:
    assert len(commands()) > 10


@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_pages_is_understood(line: str) -> None:
    _, name, *args = shlex.split(line, comments=True)
    understood(name, args)


def understood(name: str, args: list[str]) -> None:
    """Parse a command's arguments."""
    module = command(name)
    if name in ("train", "search"):
        assert parse_run(Train if name == "train" else Search, name, args) is not None
    elif name != "submit":
        parse_settings(getattr(module, name.capitalize()), name, args)
    else:
        inner = args[args.index("--") + 1 :]
        understood(inner[0], inner[1:])
