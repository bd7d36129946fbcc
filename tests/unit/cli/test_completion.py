"""Completion: every command and flag is offered, and what it takes."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.journals import open_journal
from support.models import FAMILIES
from support.pipeline import ROOT, Capture

from pipelines.cli.completion import complete, setting_flags
from pipelines.cli.main import main, names
from pipelines.store.layout import Store

SCRIPTS = {
    "bash": 'eval "$(genpipe completion bash)"; COMP_WORDS=(genpipe search vae --sched); '
    'COMP_CWORD=3; _genpipe; echo "${COMPREPLY[@]}"',
    "fish": 'genpipe completion fish | source; complete -C "genpipe search vae --sched"',
}


def completed(line: str) -> list[str]:
    return complete(names(), line.split(" ")[1:])


@pytest.mark.parametrize("name", sorted({*names()} - {"train", "search"}))
def test_the_flags_of_a_command_are_those_of_its_help(name: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert {*setting_flags(name), "--help"} == flags_of(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["train", "search"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_flags_of_a_family_are_those_of_its_help(
    name: str, family: str, capsys: Capture
) -> None:
    with pytest.raises(SystemExit):
        main([name, family, "--help"])
    assert {*setting_flags(name, family), "--help"} == flags_of(capsys.readouterr().out)


def flags_of(text: str) -> set[str]:
    """Return the flags that a help defines: at the beginning of a line, or after a comma."""
    lines = [re.sub(r"^[│ ]+|[│ ]+$", "", line) for line in text.splitlines()]
    defining = [line for line in lines if re.match(r"(-h, )?--[a-z]", line)]
    found = {flag for line in defining for flag in re.findall(r"(?:^|, )(--[a-z][\w.-]*)", line)}
    return found


def test_what_may_stand_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert completed("genpipe se") == ["search"] and completed("genpipe --v") == [
        *("--verbose", "--version")
    ]
    assert completed("genpipe ") == sorted([*names(), *completed("genpipe --")])
    assert completed("genpipe search ") == ["--help", *FAMILIES] == completed("genpipe best ")
    assert completed("genpipe search vae --optim.l") == ["--optim.lr"]
    assert completed("genpipe train gan --optim.gen")[-1].startswith("--optim.generator.")
    assert completed("genpipe search vae --fuse ") == ["auto", "off"]
    assert completed("genpipe runs --kind t") == ["trial"]
    assert completed("genpipe runs --family g") == ["gan"]
    assert completed("genpipe submit -- search vae --warm-start-a") == ["--warm-start-anyway"]
    for unknown in ("genpipe nothing ", "genpipe search nothing --", "genpipe search vae --data "):
        assert completed(unknown) == []

    monkeypatch.setenv("GENPIPE_STORE", str(tmp_path))
    for root, search_id in ((tmp_path, "vae-1"), (tmp_path / "other", "vae-2")):
        folder = Store.at(root).search(search_id)
        open_journal(folder.path)
        folder.config.write_text("{}")
    assert completed("genpipe report ") == completed("genpipe search vae --resume ") == ["vae-1"]
    elsewhere = f"genpipe stop --store {tmp_path / 'other'} "
    assert completed(elsewhere) == ["vae-2"]
    assert "--wait" in completed(f"{elsewhere}--")


@pytest.mark.parametrize("shell", SCRIPTS)
def test_a_shell_completes_with_the_script(shell: str, tmp_path: Path) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    program = tmp_path / "genpipe"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pipelines "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
    }
    ran = subprocess.run(
        [shell, "-c", SCRIPTS[shell]], env=environment, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["--scheduler"], ran.stderr


def test_completion_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from pipelines.cli.main import main; "
        "assert main(['completion', 'words', 'search', 'vae', '--model.lat']) == 0; "
        "sys.exit(bool({'torch', 'ray', 'mlflow', 'numpy'} & sys.modules.keys()))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout == "--model.latent-dim\n", ran.stderr
