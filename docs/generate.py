"""Writes the parts of the documentation that follow from the code: `python -m docs.generate`.

    docs/results.schema.json    JSON schema of what `--json` prints
    docs/architecture.svg       the packages and their imports
    docs/trial.svg              the life of a fused trial

`tests/unit/test_docs.py` fails if a file is not what this program would write.
"""

from __future__ import annotations

import ast
import inspect
import json
import logging
import textwrap
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from docs.architecture_picture import architecture_svg
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
        for field, text in _attribute_docstrings(name).items():
            definition["properties"][field].setdefault("description", text)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Results of genpipe's commands, as --json prints them",
        "anyOf": list(of_kind.values()),
    }
    return json.dumps(head | schema, indent=2) + "\n"


def _attribute_docstrings(name: str) -> Mapping[str, str]:
    """Return the docstrings under the fields of a dataclass in `pipelines.report.results`."""
    kind = getattr(results, name, None)
    if not isinstance(kind, type):
        return {}
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef)).body
    found = {}
    for node, following in pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            match following:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    found[node.target.id] = inspect.cleandoc(text)
    return found


FILES: Mapping[str, Callable[[], str]] = {
    "results.schema.json": results_schema,
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
