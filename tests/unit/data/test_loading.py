"""Names of data sets, the options that apply to them, and the list of sources."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.data import message

from pipelines.data import load, names, sources


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mnits", "did you mean mnist?"),
        ("MNIST", "did you mean mnist?"),
        ("fodler:/x", "did you mean folder:PATH?"),
        ("npz", "did you mean npz:PATH?"),
        ("folder:", "did you mean folder:PATH?"),
        ("mnist:x", "did you mean mnist?"),
        ("imagenet-22k", "expected one of digits"),
        ("", "expected one of digits"),
    ],
)
def test_unknown_name(name: str, hint: str) -> None:
    said = message(name)
    assert f"data = {name!r}" in said and hint in said
    assert all(known in said for known in names())


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("folder:x", {"image_size": 0}, ["image_size = 0", "1 to 1024"]),
        ("folder:x", {"image_size": 1025}, ["image_size = 1025", "1 to 1024"]),
        ("folder:x", {"channels": "gray"}, ["channels = 'gray'", "auto, grey, colour"]),
        ("digits", {"image_size": 32}, ["image_size = 32", "'digits'", "folder:PATH only"]),
        ("digits", {"channels": "grey"}, ["channels = 'grey'", "folder:PATH only"]),
        ("digits", {"split_seed": -1}, ["split_seed = -1", "at least 0"]),
    ],
)
def test_bad_option(name: str, options: dict[str, Any], words: list[str]) -> None:
    said = message(name, **options)
    assert all(word in said for word in words), said


def test_import_is_light() -> None:
    code = "import sys, pipelines.data; pipelines.data.names(); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "torchvision", "sklearn", "PIL"} & set(ran.stdout.split())


def test_names_are_listed_in_a_fixed_order_and_each_selects_one_source() -> None:
    expected = ["digits", "mnist", "fashion_mnist", "cifar10", "svhn", "ring8", "grid25"]
    assert names() == [*expected, "folder:PATH", "npz:PATH"]


EXTRA_SOURCE = """
import numpy as np
from pipelines.data.dataset import Arrays, Part
from pipelines.data.source import ReadRequest, Source

def read(request: ReadRequest) -> Arrays:
    side = request.image_size
    images = np.full((12, 1, side, side), int(request.path.read_text()), np.uint8)
    return Arrays(Part(images, None), None, 0)

SOURCE = Source(("constant:PATH",), read, frozenset({"image_size"}))
"""


def test_further_source_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path)])
    (tmp_path / "constant.py").write_text(EXTRA_SOURCE)
    (tmp_path / "value.txt").write_text("7")
    name = f"constant:{tmp_path / 'value.txt'}"
    try:
        assert names()[-3:] == ["constant:PATH", "folder:PATH", "npz:PATH"]
        data = load(name, tmp_path, image_size=5)
        assert data.train.shape == (9, 1, 5, 5) and (data.train == 7).all()
        assert "channels = 'grey'" in message(name, channels="grey")
        assert "constant:PATH, folder:PATH only" in message("digits", image_size=5)
        absent = message(f"constant:{tmp_path}/absent")
        assert "expected files that can be read" in absent and "absent" in absent
    finally:
        sys.modules.pop(f"{sources.__name__}.constant", None)
