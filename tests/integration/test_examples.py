"""The examples run as they are, and print what they say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from support.pipeline import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.long]
EXAMPLES = ROOT / "examples"


def run_example(name: str, folder: Path) -> str:
    """Run an example in a folder; return what it prints."""
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    command = [sys.executable, str(EXAMPLES / name)]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_every_example_has_a_test() -> None:
    names = {path.name for path in EXAMPLES.iterdir() if path.is_file()}
    scripts = {"search.py", "custom_loop.py", "compare.py", "first_search.ipynb"}
    assert names == {*scripts, "search.yaml", "stages.yaml"}


def test_a_loop_of_one_s_own(tmp_path: Path) -> None:
    text = run_example("custom_loop.py", tmp_path)
    losses = [float(value) for value in re.findall(r"^epoch +\d+  loss ([\d.]+)", text, re.M)]
    assert len(losses) >= 3 and losses == sorted(losses, reverse=True)
    assert len(text.splitlines()) == len(losses) + 8  # and a sample
    assert not list(tmp_path.iterdir())


def test_a_search_and_its_champion(tmp_path: Path) -> None:
    text = run_example("search.py", tmp_path)
    values = [float(value) for value in re.findall(r"^  trial \w+ +([\d.]+)", text, re.M)]
    assert len(values) == 8 and values == sorted(values)
    assert Path(re.findall(r"its samples: (.*)", text)[0]).is_file()

    text = run_example("compare.py", tmp_path)
    own, blank = (float(value) for value in re.findall(r"squared error of .*: +([\d.]+)", text))
    assert own < blank
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    notebook = nbformat.read(EXAMPLES / "first_search.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs for cell in cells)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    printed = "".join(each.text for cell in cells for each in cell.outputs if "text" in each)
    assert re.search(r"^val/nll/iw8: [\d.]+ ± [\d.]+ over 3 seeds$", printed, re.M)
    assert re.search(r"better than [0-3] of them", printed)
    assert "\x1b" not in printed  # progress is plain lines
    (shown,) = (each.data["text/html"] for each in cells[1].outputs)
    assert shown.count("<tr>") == 7 and "data:image/png;base64," in shown
    assert any("image/png" in each.data for each in cells[3].outputs if "data" in each)


def run_file(name: str, folder: Path) -> dict[str, Any]:
    """Run a job file of the examples in a folder; return the results of its stages."""
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-m", "pipelines", "run", str(EXAMPLES / name), "--json"]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    stages = json.loads(ran.stdout.splitlines()[-1])["stages"]
    return {stage: content["result"] for stage, content in stages.items()}


def test_the_job_files(tmp_path: Path) -> None:
    stages = run_file("stages.yaml", tmp_path)
    assert list(stages) == ["search", "confirm", "evaluate", "picture"]
    assert (tmp_path / stages["picture"]["path"]).read_bytes().startswith(b"\x89PNG")
    assert len(run_file("search.yaml", tmp_path)["search"]["ranking"]) == 8
