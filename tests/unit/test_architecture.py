"""Rules of the tree that no contract of import-linter (`pyproject.toml`) can say."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp
import networkx
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("gen_models", "pipelines", "tune_spaces")
MAX_FILES = 13
"""Files in a folder, not counting `__init__`."""
FAMILIES = [
    f"gen_models.{path.stem}"
    for path in sorted((ROOT / "gen_models").glob("*.py"))
    if path.stem != "__init__"
]
"""The modules of the built-in families; names from other packages are not meant."""


@cache
def import_graph() -> grimp.ImportGraph:
    """Return the imports between our modules, without those for type checkers."""
    return grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)


def imported_by(module: str) -> set[str]:
    return import_graph().find_modules_directly_imported_by(module)


def modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def imports_in_functions(source: str) -> Iterator[tuple[int, str]]:
    """Iterate over the imports within functions: line number, and the line with the one above."""
    lines = ["", *source.splitlines()]
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, functions):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield node.lineno, "\n".join(lines[node.lineno - 1 : node.lineno + 1])


def has_reason(lines: str) -> bool:
    """Return whether an import says why it stands in a function: at its end, or alone above it."""
    above, line = lines.split("\n")
    return "# light: " in line or above.strip().startswith("# light: ")


def test_the_graph_is_that_of_the_code() -> None:
    assert "pipelines.store.journal" in imported_by("pipelines.training.loop")
    assert set(FAMILIES) <= import_graph().modules


def test_no_circle_of_imports() -> None:
    graph = networkx.DiGraph(
        (importer, imported)
        for importer in import_graph().modules
        for imported in imported_by(importer)
    )
    circles = [c for c in networkx.strongly_connected_components(graph) if len(c) > 1]
    assert circles == []


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_imports_what_families_share_and_nobody_imports_a_family(name: str) -> None:
    shared = ("gen_models.core", "gen_models.blocks")
    assert [module for module in imported_by(name) if not module.startswith(shared)] == []
    assert import_graph().find_modules_that_directly_import(name) == set()


def test_a_family_and_its_space_have_one_name() -> None:
    spaces = {path.stem for path in (ROOT / "tune_spaces").glob("*.py")} - {"__init__"}
    families = {path.stem for path in (ROOT / "gen_models").glob("*.py")} - {"__init__"}
    assert spaces == families


def test_every_module_of_pipelines_lies_in_a_package() -> None:
    assert {path.name for path in (ROOT / "pipelines").glob("*.py")} == {
        "__init__.py",
        "__main__.py",
    }


def test_folders_are_short() -> None:
    folders = {path.parent for path in modules()}
    count = {f: len([p for p in f.glob("*.py") if p.stem != "__init__"]) for f in folders}
    del count[ROOT / "pipelines" / "cli" / "commands"]  # a table: a file for each command
    long = {str(f.relative_to(ROOT)): num for f, num in count.items() if num > MAX_FILES}
    long.pop("pipelines/cli/commands", None)  # a file each, as the user sees them
    assert long == {}


@pytest.mark.parametrize("name", ["utils", "helpers", "common", "misc"])
def test_a_module_is_named_after_its_role(name: str) -> None:
    assert [path for path in modules() if path.stem == name or path.parent.name == name] == []


def test_an_import_within_a_function_says_why() -> None:
    """But for the command line, whose every command imports what it needs when it is called."""
    lazy = ROOT / "pipelines" / "cli"
    unexplained = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in modules()
        if lazy not in path.parents
        for number, lines in imports_in_functions(path.read_text())
        if not has_reason(lines)
    ]
    assert unexplained == []


def unmarked_tests(source: str) -> list[str]:
    """Return the test functions that neither their module nor a decorator marks as slow."""
    tree = ast.parse(source)
    for node in tree.body:
        is_mark = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
        if is_mark and "pytest.mark.slow" in ast.unparse(node):
            return []
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and "pytest.mark.slow" not in map(ast.unparse, node.decorator_list)
    ]


def test_every_test_is_run_by_test_fast_or_test_slow() -> None:
    """`make test-fast` runs what is not slow in tests/unit, `make test-slow` what is slow, `make
    test-faults` what is in tests/faults, `make test-browser` what is in tests/browser."""
    tests = ROOT / "tests"
    files = sorted(tests.rglob("test_*.py"))
    places = {path.relative_to(tests).parts[0] for path in files}
    assert places == {"unit", "integration", "faults", "browser"}
    never = {
        path.name: unmarked_tests(path.read_text())
        for path in files
        if tests / "integration" in path.parents
    }
    assert {name: names for name, names in never.items() if names} == {}


def test_gen_models_runs_without_ray_and_mlflow() -> None:
    program = (
        "import sys\n"
        "for name in ('ray', 'mlflow', 'optuna', 'tyro', 'rich'): sys.modules[name] = None\n"
        "import torch, gen_models\n"
        "from gen_models import Batch, DataSpec, Learner\n"
        "for name in gen_models.names():\n"
        "    module = gen_models.family(name)\n"
        "    model = module.Model(module.Config(), DataSpec((1, 8, 8)))\n"
        "    learner = Learner(model, module.Optim(), seed=0, steps_per_epoch=1)\n"
        "    learner.step(Batch.of(torch.rand(8, 1, 8, 8)))\n"
        "    assert learner.pop_metrics()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
