"""Imports point one way: pipelines -> tune_spaces -> gen_models; only tracking knows MLflow."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "gen_models": {"ray", "mlflow", "optuna", "pipelines", "tune_spaces", "tyro", "rich"},
    "tune_spaces": {"mlflow", "pipelines"},
    "pipelines": set(),
}


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def _files() -> Iterator[tuple[str, Path]]:
    for package in FORBIDDEN:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield package, path


@pytest.mark.parametrize("package, path", list(_files()), ids=lambda value: str(value))
def test_imports_point_one_way(package: str, path: Path) -> None:
    found = set(_imports(path))
    assert not found & FORBIDDEN[package]
    assert "mlflow" not in found or "tracking" in path.relative_to(ROOT).parts


def test_gen_models_runs_without_ray_and_mlflow() -> None:
    program = (
        "import sys\n"
        "for name in ('ray', 'mlflow', 'optuna', 'tyro', 'rich'): sys.modules[name] = None\n"
        "import torch, gen_models\n"
        "from gen_models.core import Batch, DataSpec, Learner\n"
        "for name in gen_models.names():\n"
        "    module = gen_models.family(name)\n"
        "    model = module.Model(module.Config(), DataSpec((1, 8, 8)))\n"
        "    learner = Learner(model, module.Optim(), seed=0, steps_per_epoch=1)\n"
        "    learner.step(Batch.of(torch.rand(8, 1, 8, 8)))\n"
        "    assert learner.pop_metrics()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
