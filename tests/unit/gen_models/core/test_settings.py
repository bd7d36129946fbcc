"""The settings of a family that are read from its source without torch."""

import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from support.models import FAMILIES

import gen_models
from gen_models.core.errors import InputError
from gen_models.core.settings import read_settings

ROOT = Path(__file__).parents[4]
LIGHT = """
from __future__ import annotations

import heavy
from dataclasses import dataclass, field

SIZES = (8, *(16 for _ in range(1)))


def first() -> int:
    return SIZES[0]


@dataclass(frozen=True)
class Part:
    size: int = field(default_factory=first)


@dataclass(frozen=True)
class Config:
    '''Settings.'''

    part: Part = Part()

    def __post_init__(self) -> None:
        check(self.part)


def check(part: Part) -> None:
    assert part.size < limit()


if len(SIZES) == 2:
    def limit() -> int:
        return 10


Optim = Part
Network = heavy.Network
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a module that can be imported, and returns its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield write
    for name in [name for name in sys.modules if name.partition(":")[0].startswith("settings_of")]:
        del sys.modules[name]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("part", ["Config", "Optim"])
def test_they_are_those_of_the_family(family: str, part: str) -> None:
    light, own = read_settings(f"gen_models.{family}"), gen_models.family(family)
    assert light is not None
    found, expected = getattr(light, part), getattr(own, part)
    assert [f.name for f in fields(found)] == [f.name for f in fields(expected)]
    assert get_type_hints(found) == get_type_hints(expected)
    assert asdict(found()) == asdict(expected())
    assert found.__doc__ == expected.__doc__


def test_a_family_that_is_imported_gives_its_own() -> None:
    assert gen_models.settings("vae") is gen_models.family("vae")
    with pytest.raises(InputError, match="unknown family 'vea'"):
        gen_models.settings("vea")


def test_they_are_read_without_torch_and_checked() -> None:
    program = (
        "import sys, gen_models\n"
        "for name in gen_models.names():\n"
        "    settings = gen_models.settings(name)\n"
        "    assert settings.Config().latent_dim > 0 and settings.Optim()\n"
        "    try: settings.Config(latent_dim=0)\n"
        "    except gen_models.InputError: pass\n"
        "    else: raise AssertionError(name)\n"
        "assert 'torch' not in sys.modules\n"
        "assert gen_models.family('vae').Model  # the family itself comes after them\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_what_they_depend_on_is_executed_and_nothing_else(package: Any) -> None:
    module = read_settings(package("settings_of_light", LIGHT))
    assert module is not None and module.Config().part.size == module.Optim().size == 8
    assert not hasattr(module, "Network") and "heavy" not in sys.modules
    with pytest.raises(AssertionError):
        module.Config(module.Part(16))


@pytest.mark.parametrize(
    "text",
    [
        "Config = Optim = heavy",
        "from settings_of_nothing import Config, Optim",
        "Config = 1",
        "def Config(:",
        "import sys\nsys.exit(Config)",
    ],
)
def test_where_that_cannot_be_the_module_is_imported(text: str, package: Any) -> None:
    name = package("settings_of_broken", text)
    assert read_settings(name) is None
    assert not [each for each in sys.modules if each.startswith("settings_of")]
    assert read_settings("settings_of_no_module") is None
