"""The examples run as they are, and print what they say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
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
    assert names == {"search.py", "custom_loop.py", "compare.py", "quickstart.ipynb"}


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


def test_the_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = json.loads((EXAMPLES / "quickstart.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in cells)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for cell in cells:
        exec(compile("".join(cell["source"]), cell["id"], "exec"), namespace)
    out = capsys.readouterr().out
    assert re.search(r"^val/nll/iw8: [\d.]+ ± [\d.]+ over 3 seeds$", out, re.M)
    assert re.search(r"better than [0-3] of them", out)
