"""Provenance: the commit of a tracked file, whether files differ from it, and versions."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.tracking.provenance import provenance


def test_the_commit_is_that_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tags = provenance()
    assert re.fullmatch(r"unknown|[0-9a-f]{40}(-dirty)?", tags["git_commit"])
    assert tags["version.mlflow"].startswith("3.") and tags["version.torch"]
    module = sys.modules["pipelines.tracking.provenance"]
    monkeypatch.setattr(module, "__file__", str(tmp_path / "provenance.py"))
    assert provenance()["git_commit"] == "unknown"
    for step in ("init -q", "add .", "commit -q -m x"):
        (tmp_path / "provenance.py").touch()
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *step.split()], check=True)
    tags = provenance()
    assert re.fullmatch(r"[0-9a-f]{40}", tags["git_commit"])
    assert tags["mlflow.source.git.commit"] == tags["git_commit"]
    (tmp_path / "provenance.py").write_text("changed")
    assert provenance()["git_commit"] == tags["git_commit"] + "-dirty"
