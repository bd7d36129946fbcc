"""The wheel: built, installed outside the repository, and a search run from there."""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from support.pipeline import ROOT, SMALL, last_json

import pipelines

pytestmark = [pytest.mark.slow, pytest.mark.long]
PACKAGES = ("gen_models", "pipelines", "tune_spaces")
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]


class Installed(NamedTuple):
    """The wheel, the folder that it is installed in, and an environment that finds it there."""

    wheel: Path
    site: Path
    environment: Mapping[str, str]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # the build writes beside its source
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "genpipe.py"):
        shutil.copy(ROOT / name, source / name)
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder / "dist")]
    subprocess.run([*PIP, *build, str(source)], check=True)
    (wheel,) = (folder / "dist").glob("genpipe-*.whl")
    site = folder / "site"
    subprocess.run([*PIP, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    left_out = ("RAY_ADDRESS", "PYTHONPATH")
    environment = {k: v for k, v in os.environ.items() if k not in left_out}
    return Installed(wheel, site, environment | {"PYTHONPATH": str(site)})


def python(program: str, installed: Installed, folder: Path) -> str:
    """Run a program in a folder with the installed wheel; return what it prints."""
    command = [sys.executable, "-c", program]
    ran = subprocess.run(
        command, env=installed.environment, cwd=folder, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_the_wheel_holds_the_packages_and_their_types(installed: Installed) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    for package in PACKAGES:
        modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*.py")}
        assert modules <= set(names)
        assert f"{package}/py.typed" in names
    assert "genpipe.py" in names
    top_level = {name.split("/")[0] for name in names}
    (metadata,) = (name for name in top_level if name.endswith(".dist-info"))
    assert top_level == {*PACKAGES, "genpipe.py", metadata}  # neither tests nor benchmarks
    assert any("LICENSE" in name for name in names)


def test_the_installed_package_has_its_version(installed: Installed, tmp_path: Path) -> None:
    program = "import genpipe, pipelines; print(genpipe.__version__); print(pipelines.__file__)"
    version, path = python(program, installed, tmp_path).splitlines()
    assert version == installed.wheel.name.split("-")[1]
    assert Path(path).is_relative_to(installed.site)
    assert pipelines.__version__  # of this checkout


def test_a_search_runs_from_another_folder(installed: Installed, tmp_path: Path) -> None:
    args = ["search", "vae", "--trials", "2", "--epochs", "2", "--grace-period", "1", *SMALL]
    command = [sys.executable, str(installed.site / "bin" / "genpipe"), *args, "--json"]
    ran = subprocess.run(
        command, env=installed.environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    result = last_json(ran.stdout)
    assert result["outcome"] == "completed" and len(result["ranking"]) == 2
    assert Path(result["champion"]["checkpoint"]).is_relative_to(tmp_path / "runs")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]
