"""What the store keeps of a job: which stages have begun, with which settings, and their results.

A stage is written before it begins, with the id of the search that it makes, and after it has
ended. So a job that was stopped anywhere goes on: a stage that has ended is not run again, and a
search that was begun is resumed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import uuid4

from gen_models.core.config import flatten
from gen_models.core.errors import DamagedError, InputError, shown
from pipelines.cli.jobs.definition import Job, Stage
from pipelines.config.serialization import WHERE
from pipelines.report.results import Result, StageResult
from pipelines.store.journal import as_json, parsed
from pipelines.store.layout import JobFolder
from pipelines.store.lease import require_held
from pipelines.store.secrets import redact, redacted

_NOT_ENDED = -1
_MAX_NAME = 120
"""Characters of a search's id that are the names of its job and stage."""


@dataclass(frozen=True)
class StageState:
    """How far a stage is."""

    command: str
    settings: Mapping[str, Any]
    """As the job file had them when the stage began."""
    search_id: str
    """The search that the stage makes, if its command makes one."""
    exit_code: int = _NOT_ENDED

    @property
    def has_ended(self) -> bool:
        """Whether it need not be run again."""
        return self.exit_code != _NOT_ENDED


class JobState:
    """The state of a job in its store. `anew`: the job begins again, and what is known of its
    stages is forgotten. Only the process that holds the job's lease writes."""

    def __init__(self, job: Job, folder: JobFolder, *, anew: bool = False) -> None:
        self.job, self.folder, self._anew = job, folder, anew
        names = [] if anew else folder.stages()
        self._known = {name: self._read(name) for name in names}

    def ended(self, stage: Stage) -> StageResult | None:
        """Return the result of a stage that has ended; None if it has to be run."""
        known = self._known.get(stage.name)
        if known is None or not known.has_ended:
            return None
        try:
            content = json.loads(self.folder.files.read(self.folder.result(stage.name)))
        except (OSError, ValueError):  # then the command does again what is missing of it
            return None
        return StageResult(
            command=known.command, exit_code=known.exit_code, is_new=False, result=content
        )

    def require_unchanged(self) -> None:
        """Raise `InputError` if a stage that has begun is another one now."""
        now = {stage.name: stage for stage in self.job.stages}
        changes = []
        for name, state in self._known.items():
            changes += [f"{name} is gone"] if name not in now else _changes(state, now[name])
        if changes:
            raise InputError(
                f"job = {self.job.name!r}: expected the stages with which it was begun in "
                f"{self.folder.path}: {'; '.join(changes)}: --anew begins again, and another name "
                "(`job: NAME`) leaves what was done as it is"
            )

    def forget(self, stage: Stage) -> None:
        """Forget that a stage has begun, because nothing came of it."""
        require_held(self.folder)
        self._remove(stage.name)
        del self._known[stage.name]

    def _remove(self, name: str) -> None:
        self.folder.files.remove(self.folder.result(name))
        self.folder.files.remove(self.folder.stage(name))

    def open(self) -> None:
        """Record the job's file, as it is now. What an earlier start recorded stays, but for what
        is known of its stages if the job begins anew."""
        require_held(self.folder)
        for name in self.folder.stages() if self._anew else ():
            self._remove(name)
        self.folder.files.write(self.folder.job, redact(self.job.text()))

    def begin(self, stage: Stage) -> StageState:
        """Record that a stage begins or goes on."""
        known = self._known.get(stage.name)
        if known is None:
            settings: dict[str, Any] = redacted(dict(stage.content))
            known = StageState(stage.command.name, settings, self._new_search_id(stage))
            self._write(stage, known)
        return known

    def end(self, stage: Stage, result: Result) -> StageResult:
        """Record how a stage ended; return its result. One that failed or was interrupted is to be
        run again, and only its result is returned."""
        code, content = result.exit_code, json.loads(result.to_json())
        if code == 0 or (code == 1 and stage.may_fail):
            require_held(self.folder)
            self.folder.files.write(self.folder.result(stage.name), as_json(content))
            self._write(stage, replace(self._known[stage.name], exit_code=code))
        return StageResult(command=stage.command.name, exit_code=code, is_new=True, result=content)

    def _write(self, stage: Stage, state: StageState) -> None:
        require_held(self.folder)
        self.folder.files.write(self.folder.stage(stage.name), as_json(asdict(state)))
        self._known[stage.name] = state

    def _read(self, name: str) -> StageState:
        state = parsed(StageState, self.folder.files, self.folder.stage(name))
        if state is None:
            raise DamagedError(f"{self.folder.stage(name)}: damaged: it is empty; see --anew")
        return state

    def _new_search_id(self, stage: Stage) -> str:
        if name := stage.content.get("name"):
            return str(name)
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        named = f"{self.job.name}-{stage.name}" if stage.at else self.job.name
        short = named.encode()[:_MAX_NAME].decode(errors="ignore")
        return f"{short}-{stamp}-{uuid4().hex[:4]}"


def _changes(state: StageState, stage: Stage) -> list[str]:
    """Return how a stage differs from what it was when it began, but for what says where and how
    its command runs."""
    if state.command != stage.command.name:
        return [f"{stage.name} was {state.command} and is {stage.command.name}"]
    before = flatten(state.settings)
    now = flatten(json.loads(json.dumps(redacted(dict(stage.content)))))
    return [
        f"{stage.name}.{name} was {_shown(before, name)} and is {_shown(now, name)}"
        for name in sorted({*before, *now})
        if name.split(".")[0] not in WHERE
        and (name in before, before.get(name)) != (name in now, now.get(name))
    ]


def _shown(content: Mapping[str, Any], name: str) -> str:
    return shown(content[name]) if name in content else "not given"
