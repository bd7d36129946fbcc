"""Job files without Ray: what is wrong with one is said with its line, before anything starts."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.models import FAMILIES
from support.pipeline import ROOT, Capture, refused

from docs.generate import FOLDER
from gen_models.core.errors import InputError
from pipelines.cli.jobs.definition import make_job, parse_override, read_job
from pipelines.cli.jobs.references import resolve
from pipelines.cli.main import main
from pipelines.cli.parsing import given_settings, parse_run
from pipelines.cli.stages import stage_commands
from pipelines.config.command import rerun_command
from pipelines.config.job_text import dump_job
from pipelines.config.run import Run, Train
from pipelines.config.search import Search, SeedStudy
from pipelines.config.yaml_text import parse_yaml
from pipelines.tuning.search import resolve_search

STAGES = """\
stages:
  search: {family: vae, trials: 4}
  confirm:
    run: ${search.champion}
    seeds: 3
  final:
    command: evaluate
    model: ${search.champion}
    num: 2048
"""


pytestmark = pytest.mark.usefixtures("no_ray")


def stages(**replaced: str) -> str:
    """Return a good file with other text in places."""
    text = STAGES
    for before, after in replaced.items():
        found = {"champion": "${search.champion}", "trials": "trials: 4", "num": "num: 2048"}
        text = text.replace(found.get(before, before), after)
    return text


SEARCH = "command: search\nfamily: vae\n"
WRONG: dict[str, tuple[str, str]] = {
    "empty": ("", "job.yaml: is empty: expected `command:`, such as search, or `stages:`"),
    "comments": ("# nothing\n", "job.yaml: is empty"),
    "a list": ("- search", "job.yaml, line 1: expected settings, such as `command: search`"),
    "a text": ("search", "line 1: expected settings, such as `command: search`, and not 'search'"),
    "no command": ("family: vae", "line 1: expected `command:`, such as search, or `stages:`"),
    "command": ("command: serch\nfamily: vae", "line 1: unknown command 'serch' (did you mean 's"),
    "no such stage command": ("command: browse", "unknown command 'browse': expected one of best"),
    "family": ("command: search\nfamily: vea", "line 2: unknown family 'vea' (did you mean 'vae'"),
    "no family": ("command: search", "line 1: family is missing: expected one of autoencoder"),
    "family list": ("command: search\nfamily: [vae]", "line 2: family = ['vae']: expected one of"),
    "key": (f"{SEARCH}trails: 3", "line 3: unknown setting trails (did you mean 'trials'?)"),
    "far key": (f"{SEARCH}zzz: 3", "line 3: unknown setting zzz: expected one of address, batch_"),
    "deeper key": (
        f"{SEARCH}model:\n  latentdim: 3",
        "line 4: unknown setting model.latentdim (d",
    ),
    "misplaced": (
        f"{SEARCH}latent_dim: 3",
        "line 3: unknown setting latent_dim (did you mean `mo",
    ),
    "dotted": (
        f"{SEARCH}optim.lr: 3",
        "unknown setting optim.lr (did you mean `optim: {lr: …}`?)",
    ),
    "of the command line": (f"{SEARCH}dry_run: true", "line 3: unknown setting dry_run"),
    "type": (f"{SEARCH}trials: many", "line 3: trials = 'many': expected an integer"),
    "type of a flag": (f"{SEARCH}drop_last: off", "line 3: drop_last = 'off': expected True or F"),
    "number in quotes": (f"{SEARCH}epochs: '3'", "line 3: epochs = '3': expected an integer"),
    "value": (f"{SEARCH}optim:\n  lr: 0", "line 4: lr = 0.0: expected a number above 0"),
    "deep value": (
        f"{SEARCH}model: {{latent_dim: -3}}",
        "line 3: latent_dim = -3: expected an in",
    ),
    "model": (f"{SEARCH}model: 3", "line 3: model = 3: expected a mapping"),
    "choice": (f"{SEARCH}scheduler: ash", "line 3: scheduler = 'ash': expected"),
    "grace": (f"{SEARCH}epochs: 2", "grace_period = 3: expected from 1 to 2"),
    "metric": (
        f"{SEARCH}metric: [val/elbo, val/elbo]",
        "metric = 'val/elbo val/elbo': expected e",
    ),
    "mode": (f"{SEARCH}mode: least", "line 3: mode = 'least': expected min or max"),
    "resume": (f"{SEARCH}resume: x", "resume = 'x': expected a search of"),
    "data": (f"{SEARCH}data: mnits", "line 3: data = 'mnits': expected one of"),
    "batch": (f"{SEARCH}batch_size: 5000", "line 3: batch_size = 5000: expected at most 1249"),
    "all given": (
        f"{SEARCH}model: {{latent_dim: 4, kl_weight: 1}}\noptim: {{lr: 0.001}}",
        "every setting of the space was given",
    ),
    "space": (f"{SEARCH}space: [3]", "line 3: space = 3: expected text"),
    "space of nothing": (f"{SEARCH}space:\n  optim.rl: uniform(0, 1)", "line 3: space: optim.rl"),
    "space domain": (f"{SEARCH}space: ['optim.lr=uniform(2, 1)']", "line 3: space: optim.lr"),
    "space and value": (
        f"{SEARCH}optim: {{lr: 0.1}}\nspace: ['optim.lr=uniform(0.1, 1)']",
        "optim.lr: expected a value or a domain, and not both",
    ),
    "job": (f"{SEARCH}job: a/b", "line 3: job = 'a/b': expected a name of at most 200 bytes"),
    "job number": (f"{SEARCH}job: 3", "line 3: job = 3: expected text"),
    "store": (f"{SEARCH}store: [x]", "line 3: store = ['x']: expected a path"),
    "twice": (f"{SEARCH}family: gan", "line 3: family stands twice, first in line 2"),
    "no YAML": (f"{SEARCH}model: [1", "no YAML: expected ',' or ']'"),
    "may_fail": (f"{SEARCH}may_fail: 1", "line 3: may_fail = 1: expected true or false"),
    # -- stages
    "no stages": ("stages: {}", "line 1: stages = {}: expected a name for each stage"),
    "stage names": (
        "stages:\n  a b: {command: search}",
        "line 2: stage 'a b': expected as its na",
    ),
    "stage number": ("stages:\n  search: 3", "line 2: stage search = 3: expected settings"),
    "beside": (
        f"{STAGES}trials: 3",
        "line 10: unknown setting trials: beside `stages:`, expected",
    ),
    "beside, near": (f"{STAGES}stor: x", "line 10: unknown setting stor (did you mean 'store'?)"),
    "stage command": (
        stages(evaluate="evalute"),
        "line 7: stage final: unknown command 'evalute'",
    ),
    "stage key": (
        stages(num="nun: 3"),
        "line 9: stage final: unknown setting nun (did you mean '",
    ),
    "stage type": (
        stages(num="num: many"),
        "line 9: stage final: num = 'many': expected an integ",
    ),
    "stage value": (
        stages(seeds="seeds: 1 #"),
        "line 5: stage confirm: seeds = 1: expected an in",
    ),
    "stage store": (stages(num="store: x"), "line 9: stage final: store = 'x': belongs above the"),
    "stage needs": (
        stages(num="#").replace("    model: ${search.champion}\n", ""),
        "model is miss",
    ),
    "later stage's data": (
        "stages:\n  train: {family: vae}\n  gan: {command: train, family: gan, data: mnits}",
        "line 3: stage gan: data = 'mnits': expected one of",
    ),
    # -- references
    "later": (
        "stages:\n  final: {command: evaluate, model: '${search.champion}'}\n"
        "  search: {family: vae}",
        "line 2: stage final: ${search.champion}: refers to a later stage: move it up",
    ),
    "circle": (
        stages(trials="max_concurrent: '${confirm.seeds_beaten}'"),
        "the stages refer to each other in a circle: ",
    ),
    "itself": (stages(trials="data: '${search.metric}'"), "in a circle: search -> search"),
    "unknown stage": (
        stages(champion="${serch.champion}"),
        "line 4: stage confirm: ${serch.champ",
    ),
    "unknown field": (
        stages(champion="${search.champoin}"),
        "has no 'champoin' (did you mean 'ch",
    ),
    "deeper field": (
        stages(champion="${search.champion.runid}"),
        "search.champion has no 'runid'",
    ),
    "field of a value": (stages(champion="${search.metric.x}"), "search.metric is one value, and"),
    "no index": (
        stages(champion="${search.ranking.best}"),
        "search.ranking is a list: expected a",
    ),
    "a list of trials": (
        stages(champion="${search.ranking}"),
        "search.ranking is a list: expected one, as",
    ),
    "several fields": (stages(champion="${search.champion.metrics}"), "has several fields: expec"),
    "no field": (
        stages(champion="${search}"),
        "${search}: expected ${STAGE.FIELD}, such as ${sea",
    ),
    "no name": (stages(champion="${search..x}"), "${search..x}: expected ${STAGE.FIELD}"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_named_before_anything_starts(case: str, capsys: Capture) -> None:
    text, expected = WRONG[case]
    Path("job.yaml").write_text(text)
    said = refused(["run", "job.yaml"], capsys)
    assert expected in said and said.startswith("genpipe run: error: job.yaml"), said
    assert not list(Path().glob("runs/*/*"))  # nothing half-written


def test_a_file_that_is_not_there(capsys: Capture) -> None:
    assert "none.yaml: expected a YAML file: there is none" in refused(
        ["run", "none.yaml"], capsys
    )


WRONG_SET = {
    "no value": ("search.trials", "--set search.trials: expected NAME=VALUE"),
    "no name": ("=3", "--set =3: expected NAME=VALUE"),
    "stage": (
        "serach.trials=3",
        "--set serach.trials: unknown stage 'serach' (did you mean 'sear",
    ),
    "setting": (
        "search.trails=3",
        "--set search.trails: stage search: unknown setting trails (di",
    ),
    "type": (
        "search.trials=x",
        "--set search.trials: stage search: trials = 'x': expected an int",
    ),
    "YAML": ("search.model={a", "--set search.model, line 1: no YAML"),
    "of the job": (
        "stores=x",
        "--set stores: unknown stage 'stores': expected STAGE.SETTING of s",
    ),
    "reference": (
        "final.num=${a.b}",
        "--set final.num: stage final: ${a.b}: there is no such sta",
    ),
}


@pytest.mark.parametrize("case", WRONG_SET)
def test_a_wrong_override_is_named(case: str, capsys: Capture) -> None:
    given, expected = WRONG_SET[case]
    Path("job.yaml").write_text(STAGES)
    assert expected in refused(["run", "job.yaml", "--set", given], capsys)


def test_an_override_replaces_or_adds_a_setting(capsys: Capture) -> None:
    Path("job.yaml").write_text(STAGES)
    sets = ["search.trials=9", "search.model.hidden=[64, 32]", "store=here", "final.num=5000"]
    flags = [word for each in sets for word in ("--set", each)]
    assert main(["run", "job.yaml", *flags, "--dry-run"]) == 0
    content = parse_yaml(capsys.readouterr().out, "x").content
    assert content["job"] == "job" and content["store"] == "here"
    assert content["stages"]["search"] == {
        "family": "vae",
        "trials": 9,
        "model": {"hidden": [64, 32]},
    }
    assert content["stages"]["final"]["num"] == 5000
    assert not Path("here").exists()


def test_an_override_of_a_single_command_names_its_setting() -> None:
    Path("j.yaml").write_text(f"{SEARCH}optim: {{lr: 0.1}}")
    job = read_job(Path("j.yaml"), {"optim.lr": 0.2, "trials": 3, "store": "x", "job": "named"})
    settings = job.stages[0].settings(job.shared, {})
    assert (settings.optim.lr, settings.trials, settings.store) == (0.2, 3, Path("x"))
    assert job.name == "named"
    assert job.stages[0].given == {"family", "optim.lr", "trials"}


def test_what_is_shared_holds_for_every_stage_that_has_it() -> None:
    text = f"store: here\ntracking_uri: http://u:pa55word@h:1\ndata_root: d\n{STAGES}"
    job = make_job(parse_yaml(text, "x"), "x", {})
    search, confirm, _ = (stage.settings(job.shared, None) for stage in job.stages)
    assert search.store == confirm.store == job.store == Path("here")
    assert search.data_root == confirm.data_root == Path("d")
    assert job.tracking_uri == search.tracking_uri == confirm.tracking_uri == "http://u@h:1"


def test_a_list_may_have_references() -> None:
    text = stages(evaluate="report").replace("model: ${search", "searches: ['${search")
    text = text.replace(".champion}\n    num: 2048", ".search_id}', s-2]")
    job = make_job(parse_yaml(text, "x"), "x", {})
    results = {"search": {"search_id": "s-1"}}
    assert job.stages[2].settings(job.shared, results).searches == ("s-1", "s-2")
    validator().validate(job.document.content)


@pytest.mark.parametrize(
    "space",
    [
        "[none, 'optim.lr=loguniform(1e-5, 1e-1)', 'model.latent_dim=choice([2, 4])']",
        "{none: , optim: {lr: 'loguniform(1e-5, 1e-1)'}, model.latent_dim: 'choice([2, 4])'}",
    ],
)
def test_a_space_is_a_list_of_texts_or_a_mapping(space: str) -> None:
    job = make_job(parse_yaml(f"{SEARCH}space: {space}", "x"), "x", {})
    (stage,) = job.stages
    assert stage.given == {"family", "space"}
    searched = resolve_search(stage.settings({}, {}), stage.given).space
    assert searched[0] == "none" and len(searched) == 3
    args = ["vae", "--space", "none", "optim.lr=loguniform(1e-5, 1e-1)"]
    wanted = parse_run(Search, "search", [*args, "model.latent_dim=choice([2, 4])"])
    assert wanted and searched == wanted.space
    validator().validate(job.document.content)


# -- references -----------------------------------------------------------------------------------
RESULTS: dict[str, Any] = {
    "search": {
        "search_id": "s-1",
        "champion": {"run_id": "r1", "trial_id": "t1", "config": {"optim.lr": 0.1}, "epochs": 3},
        "ranking": [{"run_id": None, "trial_id": "t2", "metrics": {"val/fd": 2.5}}],
        "report": None,
    }
}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("${search.champion}", "r1"),
        ("${search.champion.epochs}", 3),
        ("${search.champion.config.optim.lr}", 0.1),
        ("${search.ranking.0}", "t2"),  # MLflow has not recorded it yet
        ("${search.ranking.0.metrics.val/fd}", 2.5),
        ("out-${search.search_id}-${search.champion.epochs}.png", "out-s-1-3.png"),
        ({"a": ["${search.champion.epochs}", 5]}, {"a": [3, 5]}),
        ("$search {x} $${", "$search {x} $${"),
        (7, 7),
    ],
)
def test_a_reference_stands_for_a_value(value: Any, expected: Any) -> None:
    assert resolve(value, RESULTS) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("${search.report}", "expected a value, and stage search has none"),
        ("${search.ranking.1}", "stage search ended without '1'"),
        ("${search.champion.config.model.x}", "stage search ended without 'config.model.x'"),
    ],
)
def test_a_result_that_lacks_a_value_is_named(value: str, expected: str) -> None:
    if "config" in value:
        expected = "stage search ended without 'model.x'"
    with pytest.raises(InputError, match=expected):
        resolve(value, RESULTS)


# -- the schema -----------------------------------------------------------------------------------
@cache
def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads((FOLDER / "job.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


BEYOND_THE_SCHEMA = {
    *("value", "deep value", "grace", "metric", "resume", "data", "batch", "all given", "job"),
    *("space of nothing", "space domain", "space and value"),
    *("stage value", "later stage's data", "later", "circle", "itself", "unknown stage"),
    *(
        "unknown field",
        "deeper field",
        "field of a value",
        "no index",
        "a list of trials",
        "no field",
    ),
    *("several fields", "no name"),
}
"""What depends on values, on data or on other stages: the schema says names and types."""


@pytest.mark.parametrize("case", WRONG)
def test_the_schema_refuses_what_the_parser_refuses(case: str) -> None:
    try:
        content = parse_yaml(WRONG[case][0], "x").content
    except InputError:
        return  # no YAML at all
    assert validator().is_valid(content) == (case in BEYOND_THE_SCHEMA)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.name)
def test_an_example_is_of_the_schema_and_is_read(path: Path) -> None:
    content = parse_yaml(path.read_text(), path.name).content
    validator().validate(content)
    job = read_job(path)
    assert [stage.settings(job.shared, None) for stage in job.stages]
    again = make_job(parse_yaml(job.text(), "again"), "another", {})
    assert (again.name, again.shared) == (job.name, job.shared)
    assert [stage.content for stage in again.stages] == [stage.content for stage in job.stages]
    assert "$schema=../docs/job.schema.json" in path.read_text().splitlines()[0]


def test_every_command_of_the_schema_is_one_of_the_parser() -> None:
    defs = json.loads((FOLDER / "job.schema.json").read_text(encoding="utf-8"))["$defs"]
    alone = {name.removesuffix("-alone") for name in defs if name.endswith("-alone")}
    families = [family for family in FAMILIES if not family.startswith("linear")]
    expected = {
        name if not issubclass(command.settings, Run) else f"{name}-{family}"
        for name, command in stage_commands().items()
        for family in families
    }
    assert alone == expected


# -- writing --------------------------------------------------------------------------------------
COMMANDS = [
    "search vae",
    "search vae --trials 9 --scheduler pbt --fuse 3 --max-concurrent 2",
    "search gan --model.pac 2 --optim.generator.lr 3e-4 --searcher grid --compile off",
    "search vae --model.kl-weight 1.0 --optim.lr 0.001",  # the defaults, given: not searched
    "search autoencoder --metric val/squared_error --metric val/fd --no-drop-last --fuse off",
    "search vae --metric val/elbo --mode min --store elsewhere --data-root here --download",
    "search vae --space 'optim.lr=loguniform(1e-5, 0.1)' 'model.hidden=choice([[64], [32, 32]])'",
    "search vae --space none 'model.kl_weight=uniform(0, 1) if model.arch == \"mlp\"' "
    "'model.arch=choice([\"mlp\", \"conv\"])' --require 'model.kl_weight <= 0.9'",
    "train vae --model.hidden 64 32 --model.importance-samples 2 --name it --seed 5",
    "train gan --data ring8 --model.arch mlp --binarise --image-size 8 --features pca",
]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_that_is_saved_is_the_same_command(line: str, capsys: Capture) -> None:
    name, *args = shlex.split(line)
    kind: type[Run] = Search if name == "search" else Train
    wanted = parse_run(kind, name, args)
    assert wanted
    assert main([name, *args, "--save", "folder/job.yaml"]) == 0
    assert capsys.readouterr().out.strip() == "folder/job.yaml"
    validator().validate(parse_yaml(Path("folder/job.yaml").read_text(), "x").content)

    job = read_job(Path("folder/job.yaml"))
    (stage,) = job.stages
    settings = stage.settings(job.shared, {})
    if isinstance(wanted, Search):
        wanted = resolve_search(wanted, given_settings(args))
        settings = resolve_search(settings, stage.given)
    assert settings == wanted
    assert rerun_command(settings) == rerun_command(wanted)
    assert not Path("runs").exists()


def test_a_search_without_anything_to_search_is_not_saved(capsys: Capture) -> None:
    args = ["search", "vae", "--model.latent-dim", "4", "--model.kl-weight", "1"]
    said = refused([*args, "--optim.lr", "0.001", "--save", "job.yaml"], capsys)
    assert "every setting of the space was given" in said and not Path("job.yaml").exists()


def test_no_secret_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", "planted-secret")
    uri = "http://name:planted-password@127.0.0.1:9"
    args = ["train", "vae", "--tracking-uri", uri, "--data", "npz:/planted-secret.npz"]
    assert main([*args, "--save", "job.yaml"]) == 0
    text = Path("job.yaml").read_text()
    assert "planted" not in text and "tracking_uri: http://name@127.0.0.1:9" in text


def test_a_url_for_notices_is_not_shown(capsys: Capture) -> None:
    Path("job.yaml").write_text(f"{SEARCH}notify: https://host.invalid/planted-hook")
    assert main(["run", "job.yaml", "--dry-run"]) == 0
    assert "planted-hook" not in capsys.readouterr().out
    job = read_job(Path("job.yaml"))
    search = job.stages[0].settings(job.shared, {})
    assert search.notify and "planted-hook" not in dump_job(search)


def test_a_seed_study_is_the_command_confirm() -> None:
    run = parse_run(Search, "search", ["vae", "--trials", "7", "--fuse", "off"])
    assert run
    study = SeedStudy(run="r1", name="n", search_id="", data_digest="d", value=None)
    content = parse_yaml(dump_job(replace(run, seed_study=study)), "x").content
    assert content == {"command": "confirm", "run": "r1", "seeds": 7, "fuse": "off"}


def test_the_value_of_an_override_is_yaml() -> None:
    assert parse_override("a.b=[1, off]") == ("a.b", [1, "off"])
    assert parse_override("a=x=y") == ("a", "x=y")
    assert parse_override("a=") == ("a", None)


# -- as a job of a cluster ------------------------------------------------------------------------
def test_a_job_file_is_submitted_only_from_the_folder_that_is_sent(capsys: Capture) -> None:
    Path("sent").mkdir()
    Path("job.yaml").write_text(f"{SEARCH}store: /shared")
    submit = ["submit", "--working-dir", "sent", "--", "run"]
    assert "file = 'job.yaml': expected a file below" in refused([*submit, "job.yaml"], capsys)
    Path("sent/relative.yaml").write_text(SEARCH)
    said = refused([*submit, "sent/relative.yaml"], capsys)
    assert "store = 'runs': expected the absolute path" in said
    wrong = refused([*submit, "sent/relative.yaml", "--set", "trials=0"], capsys)
    assert "--set trials: trials = 0: expected an integer of at least 1" in wrong
