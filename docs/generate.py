"""Writes the parts of the documentation that follow from the code: `python -m docs.generate`.

    docs/results.schema.json    JSON schema of what `--json` prints
    docs/job.schema.json        JSON schema of job files (`genpipe run`)
    docs/architecture.svg       the packages and their imports
    docs/trial.svg              the life of a fused trial

`tests/unit/test_docs.py` fails if a file is not what this program would write.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from docs.architecture_picture import architecture_svg
from docs.docstrings import attribute_docstrings
from docs.job_schema import job_schema
from docs.trial_picture import trial_svg
from pipelines.report import results
from pipelines.report.results import RESULTS

FOLDER = Path(__file__).parent
_log = logging.getLogger(__name__)


def results_schema() -> str:
    """Return the JSON schema of the results. A command prints one of them."""
    kinds: list[tuple[str, Literal["serialization"], TypeAdapter[Any]]] = [
        (kind.__name__, "serialization", TypeAdapter(kind)) for kind in RESULTS
    ]
    of_kind, schema = TypeAdapter.json_schemas(kinds)
    for name, definition in schema["$defs"].items():
        kind = getattr(results, name, None)
        texts = attribute_docstrings(kind) if isinstance(kind, type) else {}
        for field, text in texts.items():
            definition["properties"][field].setdefault("description", text)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Results of genpipe's commands, as --json prints them",
        "anyOf": list(of_kind.values()),
    }
    return json.dumps(head | schema, indent=2) + "\n"


def job_file_schema() -> str:
    """Return the JSON schema of job files."""
    return json.dumps(job_schema(), indent=1) + "\n"


FILES: Mapping[str, Callable[[], str]] = {
    "results.schema.json": results_schema,
    "job.schema.json": job_file_schema,
    "architecture.svg": architecture_svg,
    "trial.svg": trial_svg,
}
"""What makes the content of each file, by its name in this folder."""


def main() -> None:
    """Write every file."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name, content in FILES.items():
        (FOLDER / name).write_text(content(), encoding="utf-8")
        _log.info("%s", FOLDER / name)


if __name__ == "__main__":
    main()
