"""How trials are trained, vectorised or in turn: measured once for each structure of a search.

The two give the same values up to rounding. So what a stopwatch has chosen is kept in the search's
folder, where every worker of the search finds it: one that was restarted, one on another node, one
of a process that resumes the search.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from gen_models.fused.trainer import Choice
from pipelines.store.files import LOCAL, Files
from pipelines.store.journal import as_json
from pipelines.store.layout import SearchFolder


class RecordedChoices:
    """A `gen_models.fused.trainer.Choices` in a search's folder."""

    def __init__(self, search: SearchFolder, files: Files = LOCAL) -> None:
        self._folder, self._files = search.execution, files

    def find(self, structure: str) -> Choice | None:
        """Return what was chosen for a structure; None if nothing was yet."""
        path = self._path(structure)
        if not self._files.exists(path):
            return None
        content = json.loads(self._files.read(path))
        return Choice(content["execution"], content["reason"])

    def keep(self, structure: str, choice: Choice) -> Choice:
        """Keep a choice unless there is one already; return the one that holds."""
        content = as_json({**asdict(choice), "structure": structure})
        if self._files.create(self._path(structure), content):
            return choice
        found = self.find(structure)
        assert found
        return found

    def _path(self, structure: str) -> Path:
        digest = hashlib.sha256(structure.encode()).hexdigest()[:16]
        return self._folder / f"{digest}.json"
