"""What a job file says: its stages, their commands and settings, checked before anything runs.

    command: search             one stage: a command, and its settings in the config's shape
    family: vae
    model: {hidden: [256]}

    job: vae-on-digits          or several, in the order in which they run
    store: runs
    stages:
      search: {family: vae, trials: 24}
      evaluate: {model: "${search.champion}"}

A stage's command is that of its name, if it names no other. What says where a job runs (`SHARED`)
stands once, above the stages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, get_args, get_type_hints

import gen_models
from gen_models.core import config
from gen_models.core.config import convert, flatten
from gen_models.core.errors import InputError, did_you_mean, require, shown, shown_name
from pipelines.cli.jobs.references import (
    Reference,
    check_type,
    has_references,
    references,
    resolve,
)
from pipelines.cli.stages import StageCommand, stage_commands
from pipelines.config.objectives import as_list
from pipelines.config.run import Run
from pipelines.config.search import with_metrics
from pipelines.config.serialization import config_from_python, settings_from_python
from pipelines.config.yaml_text import (
    Document,
    Key,
    PlacedError,
    dump_yaml,
    parse_yaml,
    read_yaml,
)
from pipelines.store.layout import default_store, require_name
from pipelines.store.secrets import hide

SHARED = ("store", "tracking_uri", "data_root", "download", "address")
"""Settings that say where a job's commands run: they stand above the stages, and hold for all
whose commands have them."""
OF_JOB = ("store", "tracking_uri")
"""Those that a stage may not have: the stages find each other's results there."""
OF_STAGE = ("command", "may_fail")
"""What a stage has beside the settings of its command."""
_NOT_IN_FILE = {"json", "dry_run"}
"""Settings that say what a command prints, and not what it does."""
STAGE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_FIELD = re.compile(r"([A-Za-z_][\w.]*)(?: = |:)")
"""How the message of an `InputError` begins if a setting is wrong."""


@dataclass(frozen=True)
class Stage:
    """A command of a job, with its settings as the file has them."""

    name: str
    command: StageCommand
    content: Mapping[str, Any]
    """The settings that are given, in the config's shape; `family` too if the command has one."""
    may_fail: bool
    document: Document
    at: Key
    """Where it stands in the document."""

    @property
    def is_run(self) -> bool:
        """Whether its settings are the config of a run or a search."""
        return issubclass(self.command.settings, Run)

    @property
    def given(self) -> frozenset[str]:
        """The names of the settings that are given, flat."""
        given = {k: v for k, v in _with_space(self.content).items() if v is not None}
        return frozenset(flatten(given)) | ({"metric"} if "mode" in given else set())

    @cached_property
    def references(self) -> tuple[tuple[Key, Reference], ...]:
        """The references in its settings, and where they stand."""
        with self.errors_placed():
            return tuple(references(self.content, self.at))

    def settings(self, shared: Mapping[str, Any], results: Mapping[str, Any] | None) -> Any:
        """Return the command's settings. `results`: those of the stages before, by their names;
        None if there are none yet: then a setting with a reference has its default, or the
        reference as its text.

        Raises `InputError` that names the line and the stage.
        """
        known = {f.name for f in fields(self.command.settings)}
        content = {k: v for k, v in shared.items() if k in known} | _with_space(self.content)
        with self.errors_placed():
            content = (
                self._without_references(content) if results is None else resolve(content, results)
            )
            if not self.is_run:
                return config.from_dict(self.command.settings, content)
            family, metric, mode = (content.pop(n, None) for n in ("family", "metric", "mode"))
            run: Run = config_from_python(self.command.settings, family, content)
            return with_metrics(run, as_list("metric", metric), as_list("mode", mode))

    def _without_references(self, content: Mapping[str, Any]) -> dict[str, Any]:
        hints = get_type_hints(self.command.settings)
        kept = {}
        for name, value in content.items():
            is_text = hints[name] is str or str in get_args(hints[name])
            if not has_references(value) or (is_text and isinstance(value, (str, list))):
                kept[name] = value
            elif isinstance(value, Mapping):
                kept[name] = _pruned(value)
        return kept

    @contextmanager
    def errors_placed(self) -> Iterator[None]:
        """Add the line and the stage to an `InputError` of the block."""
        try:
            yield
        except PlacedError:
            raise
        except InputError as error:
            found = _FIELD.match(str(error))
            key = self.document.find(self.at, found[1]) if found else self.at
            raise self.error(str(error), *key[len(self.at) :]) from error

    def error(self, message: str, *key: str | int) -> PlacedError:
        """Return the error of a setting at a key of the stage."""
        named = f"stage {self.name}: " if self.at else ""
        return self.document.error(f"{named}{message}", *self.at, *key)


def _with_space(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with a space that is a mapping, from names to domains, as the texts that
    `--space` takes."""
    space = content.get("space")
    if not isinstance(space, Mapping):
        return dict(content)
    texts = [name if each is None else f"{name}={each}" for name, each in flatten(space).items()]
    return {**content, "space": texts}


def _pruned(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping without the values that have references."""
    return {
        name: _pruned(each) if isinstance(each, Mapping) else each
        for name, each in value.items()
        if isinstance(each, Mapping) or not has_references(each)
    }


@dataclass(frozen=True)
class Job:
    """What a job file says."""

    name: str
    shared: Mapping[str, Any]
    """The values of `SHARED` that are given."""
    stages: tuple[Stage, ...]
    document: Document

    @property
    def store(self) -> Path:
        """The folder of all results."""
        return Path(self.shared.get("store") or default_store())

    @property
    def tracking_uri(self) -> str | None:
        uri: str | None = self.shared.get("tracking_uri")
        return uri

    def text(self) -> str:
        """Return the job as a file, with the values that replaced those of its own."""
        rest = {name: value for name, value in self.document.content.items() if name != "job"}
        return dump_yaml({"job": self.name, **rest})


# -- reading -------------------------------------------------------------------------------------
def read_job(path: Path, overrides: Mapping[str, Any] | None = None) -> Job:
    """Return the job in a file, with other values of some settings: `{"search.trials": 4}`.

    Raises `InputError` at whatever is wrong with it, with the line.
    """
    return make_job(read_yaml(path), path.stem, overrides or {})


def parse_override(text: str) -> tuple[str, Any]:
    """Return the name and the value of `--set NAME=VALUE`. Raises `InputError`."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise InputError(f"--set {shown_name(text)}: expected NAME=VALUE, such as search.trials=4")
    return name, parse_yaml(value, f"--set {shown_name(name)}").content


def make_job(document: Document, name: str, overrides: Mapping[str, Any]) -> Job:
    """Return the job that a document holds. `name`: the job's name, unless the document has one.

    Raises `InputError`.
    """
    if document.content is None:
        raise document.error("is empty: expected `command:`, such as search, or `stages:`")
    if not isinstance(document.content, Mapping):
        found = shown(document.content)
        raise document.error(f"expected settings, such as `command: search`, and not {found}")
    for setting, value in overrides.items():
        key = _override_key(document, setting)
        document = document.replaced(key, value, f"--set {shown_name(setting)}")
    content: Mapping[str, Any] = document.content
    stages = _stages(document) if "stages" in content else (_only_stage(document),)
    of_job = SHARED if "stages" in content else OF_JOB
    job = Job(_job_name(document, name), _shared(document, of_job), stages, document)
    _check_references(job)
    for stage in stages:
        stage.settings(job.shared, None)
    return job


def _override_key(document: Document, setting: str) -> Key:
    """Return where a setting belongs: `search.trials` below the stage `search`."""
    key = tuple(setting.split("."))
    stages = document.content.get("stages")
    if not isinstance(stages, Mapping) or key[0] in (*SHARED, "job", "stages"):
        return key
    if key[0] not in stages:
        known = ", ".join(map(shown_name, stages))
        raise InputError(
            f"--set {shown_name(setting)}: unknown stage {shown(key[0])}"
            f"{did_you_mean(key[0], stages)}: expected STAGE.SETTING of {known}, or one of "
            f"{', '.join(SHARED)}"
        )
    return ("stages", *key)


def _job_name(document: Document, default: str) -> str:
    name = document.content.get("job", default)
    try:
        require(isinstance(name, str), "job", name, "text")
        return require_name("job", name)
    except InputError as error:
        raise document.error(str(error), "job") from error


def _shared(document: Document, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the values of what all stages share."""
    shared, hints = {}, get_type_hints(Run)
    for name in names:
        if (value := document.content.get(name)) is not None:
            try:
                shared[name] = convert(name, hints[name], value)
            except InputError as error:
                raise document.error(str(error), name) from error
    if "tracking_uri" in shared:
        shared["tracking_uri"] = hide(shared["tracking_uri"])
    return shared


def _only_stage(document: Document) -> Stage:
    """Return the stage of a file that is one command."""
    content: Mapping[str, Any] = document.content
    if "command" not in content:
        near = did_you_mean("command", content)
        raise document.error(f"expected `command:`, such as search, or `stages:`{near}")
    own = {name: value for name, value in content.items() if name not in ("job", *OF_JOB)}
    return _stage(document, str(content["command"]), own, ())


def _stages(document: Document) -> tuple[Stage, ...]:
    """Return the stages in their order."""
    content: Mapping[str, Any] = document.content
    known = ("job", *SHARED, "stages")
    for name in content:
        if name not in known:
            near = did_you_mean(name, known)
            why = f"beside `stages:`, expected one of {', '.join(known)}; settings of a command "
            message = f"unknown setting {shown_name(name)}{near}: {why}belong to its stage"
            raise document.error(message, name)
    stages = content["stages"]
    if not isinstance(stages, Mapping) or not stages:
        expected = "a name for each stage, with its settings"
        raise document.error(f"stages = {shown(stages)}: expected {expected}", "stages")
    return tuple(_named_stage(document, name, inside) for name, inside in stages.items())


def _named_stage(document: Document, name: str, content: Any) -> Stage:
    at = ("stages", name)
    if not STAGE_NAME.fullmatch(name):
        expected = "a letter, then at most 63 letters, digits, dashes and underscores"
        raise document.error(f"stage {shown(name)}: expected as its name {expected}", *at)
    if not isinstance(content, Mapping):
        expected = "settings, such as `family: vae`"
        raise document.error(f"stage {name} = {shown(content)}: expected {expected}", *at)
    stage = _stage(document, name, content, at)
    for setting in OF_JOB:
        if setting in content:
            where = "above the stages, which find each other's results there"
            raise stage.error(f"{setting} = {shown(content[setting])}: belongs {where}", setting)
    return stage


def _stage(document: Document, name: str, content: Mapping[str, Any], at: Key) -> Stage:
    known, command = stage_commands(), content.get("command", name)
    settings = {name: value for name, value in content.items() if name not in OF_STAGE}
    may_fail = content.get("may_fail", False)
    if not (isinstance(command, str) and command in known):
        near = did_you_mean(str(command), known)
        named = f"stage {name}: " if at else ""
        message = f"{named}unknown command {shown(command)}{near}"
        message += f": expected one of {', '.join(sorted(known))}"
        raise document.error(message, *at, "command")
    stage = Stage(name, known[command], settings, may_fail, document, at)
    with stage.errors_placed():
        require(isinstance(may_fail, bool), "may_fail", may_fail, "true or false")
        _check_names(stage)
    return stage


# -- names ---------------------------------------------------------------------------------------
def setting_hints(kind: type[Any], family: str) -> dict[str, Any]:
    """Return the settings that a stage of a command may have, and their types. `family`: of a
    command that takes one."""
    hints = get_type_hints(kind)
    if not issubclass(kind, Run):
        return {name: hint for name, hint in hints.items() if name not in _NOT_IN_FILE}
    module = gen_models.family(family)
    hints |= {"model": module.Config, "optim": module.Optim}
    return {name: hints[name] for name in ("family", *settings_from_python(kind))}


def is_required(setting: Field[Any]) -> bool:
    """Return whether a command needs a setting."""
    return setting.default is MISSING and setting.default_factory is MISSING


def _check_names(stage: Stage) -> None:
    """Check that each setting is one of the command's, and that it has all that it needs."""
    content, kind = stage.content, stage.command.settings
    family = content.get("family")
    if stage.is_run:
        families = f"expected one of {', '.join(gen_models.names())}"
        if family is None:
            raise stage.error(f"family is missing: {families}")
        require(isinstance(family, str), "family", family, families.removeprefix("expected "))
        try:
            gen_models.family(str(family))
        except InputError as error:
            raise stage.error(str(error), "family") from error
    _check_level(stage, content, setting_hints(kind, str(family)), ())
    for each in fields(kind):
        if not stage.is_run and is_required(each) and content.get(each.name) is None:
            raise stage.error(f"{each.name} is missing, which {stage.command.name} needs")


def _check_level(
    stage: Stage, content: Mapping[str, Any], hints: Mapping[str, Any], above: Key
) -> None:
    for name, value in content.items():
        if name not in hints:
            label = shown_name(".".join(map(str, (*above, name))))
            known = [*hints, *(() if above else OF_STAGE)]
            near = _deeper(name, hints) or did_you_mean(name, known)
            expected = near or f": expected one of {', '.join(sorted(known))}"
            raise stage.error(f"unknown setting {label}{expected}", *above, name)
        hint = hints[name]
        if is_dataclass(hint) and isinstance(value, Mapping):
            _check_level(stage, value, get_type_hints(hint), (*above, name))


def _deeper(name: str, hints: Mapping[str, Any]) -> str:
    """Return the hint that a setting belongs into a mapping, as `latent_dim` or `model.latent_dim`
    into `model`."""
    above, _, last = name.rpartition(".")
    for group, hint in hints.items():
        if is_dataclass(hint) and last in get_type_hints(hint) and above in ("", group):
            return f" (did you mean `{group}: {{{last}: …}}`?)"
    return ""


def _check_references(job: Job) -> None:
    """Check that each reference names an earlier stage, and a field of its result."""
    position = {stage.name: number for number, stage in enumerate(job.stages)}
    uses = {
        stage.name: {reference.stage for _, reference in stage.references} & set(position)
        for stage in job.stages
    }
    try:
        TopologicalSorter(uses).prepare()
    except CycleError as error:
        circle = " -> ".join(reversed(error.args[1]))
        message = f"the stages refer to each other in a circle: {circle}"
        raise job.document.error(message, "stages", error.args[1][0]) from error
    for number, stage in enumerate(job.stages):
        for key, reference in stage.references:
            at = key[len(stage.at) :]
            if reference.stage not in position:
                near = did_you_mean(reference.stage, position)
                raise stage.error(f"{reference}: there is no such stage{near}", *at)
            if position[reference.stage] > number:
                raise stage.error(f"{reference}: refers to a later stage: move it up", *at)
            try:
                check_type(reference, job.stages[position[reference.stage]].command.result)
            except InputError as error:
                raise stage.error(str(error), *at) from error
