"""The packages that are sent to a cluster."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.family_package import write_family_package

import gen_models
import pipelines
import tune_spaces
from pipelines.cluster.packages import family_packages, project_packages


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A family whose entry point, model and space are in three top-level packages."""
    folder = tmp_path / "source"
    write_family_package(folder, model="wae_model", space="wae_space", value="wae_plugin:WAE")
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in ("wae_plugin", "wae_model", "wae_space"):
        sys.modules.pop(name, None)


def test_packages_of_the_project_are_those_that_are_imported() -> None:
    imported = [Path(package.__path__[0]) for package in (gen_models, pipelines, tune_spaces)]
    assert [path.resolve() for path in project_packages()] == [p.resolve() for p in imported]


def test_no_family_package_without_entry_points() -> None:
    with family_packages() as packages:
        assert packages == []


def test_family_outside_site_packages_is_sent_with_its_entry_point(family: Path) -> None:
    with family_packages() as packages:
        assert [path.name for path in packages] == [
            "wae_plugin",
            "wae_model",
            "wae_space",
            "other_models-1.2.dist-info",
        ]
        copied = family.parent / "copied"
        for package in packages:
            shutil.copytree(package, copied / package.name)
        # A process that has these on its path, as Ray unpacks them, knows the family.
        code = (
            "import importlib\n"
            "from gen_models.core import families\n"
            "print(importlib.import_module(families.space_module('wae')).__file__)\n"
        )
        project = {str(package.parent) for package in project_packages()}
        path = ":".join([str(copied), *project])
        ran = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout.strip() == str(copied / "wae_space" / "__init__.py")
    assert not packages[-1].exists()


def test_family_in_site_packages_is_not_sent(
    family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("site.getsitepackages", lambda: [str(family)])
    with family_packages() as packages:
        assert packages == []


def test_broken_family_is_named_and_the_others_are_sent(
    family: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry_points = family / "other_models-1.2.dist-info" / "entry_points.txt"
    entry_points.write_text(entry_points.read_text() + "broken = no_such_module:NONE\n")
    with family_packages() as packages:
        assert family / "wae_model" in packages
        assert "broken" not in (packages[-1] / "entry_points.txt").read_text()
    assert "'broken' is not sent to the cluster" in caplog.text
