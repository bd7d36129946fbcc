"""The registry of families: built-in ones, and those of other packages by entry points."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.models import FAMILIES, make_learner

import gen_models
import tune_spaces
from gen_models import InputError, load_checkpoint, save_checkpoint
from gen_models.core.families import distribution

ROOT = Path(__file__).parents[4]
FAMILY = "from gen_models import Family\nWAE = Family('wae_package.wae', 'wae_package.space')\n"
MODULE = "from gen_models.vae import Config, Model, Optim\n"
SPACE = (
    "from tune_spaces import Space\n"
    "SPACE = Space({'model': {}}, metric='val/nll', mode='min', epochs=2, grace_period=1)\n"
)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Install":
    """Installs packages into a folder of the test's own, which is on `sys.path`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("wae_package")]:
        monkeypatch.delitem(sys.modules, name)
    yield Install(tmp_path)
    for name in [name for name in sys.modules if name.startswith("wae_package")]:
        del sys.modules[name]


class Install:
    """Writes a package with a family, and its metadata as an installer would."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(
        self,
        family: str = "wae",
        *,
        package: str = "wae-package",
        value: str = "wae_package:WAE",
        init: str = FAMILY,
        module: str = MODULE,
    ) -> None:
        folder = self.root / "wae_package"
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").write_text(init)
        (folder / "wae.py").write_text(module)
        (folder / "space.py").write_text(SPACE)
        info = self.root / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[genpipe.families]\n{family} = {value}\n")


def test_built_in_families_are_modules_and_no_packages() -> None:
    folder = Path(gen_models.__file__).parent
    assert [name for name in FAMILIES if (folder / f"{name}.py").is_file()] == FAMILIES
    assert {"autoencoder", "gan", "vae"} <= set(FAMILIES)
    assert not {"core", "blocks", "training", "testing"} & set(FAMILIES)


def test_an_unknown_family_is_told_the_known() -> None:
    with pytest.raises(InputError, match=r"unknown family 'vea' \(did you mean 'vae'"):
        gen_models.family("vea")


def test_a_family_of_another_package_is_found_with_its_space(install: Install) -> None:
    install()
    assert "wae" in gen_models.names() and "wae_package" not in sys.modules
    assert gen_models.space_module("wae") == "wae_package.space"
    assert gen_models.family("wae").__name__ == "wae_package.wae"
    assert tune_spaces.space("wae").metric == "val/nll"
    assert (distribution("wae"), distribution("vae")) == ("wae-package", None)


def test_listing_families_and_their_spaces_imports_neither_torch_nor_ray(
    install: Install,
) -> None:
    install()
    program = (
        "import sys, gen_models\n"
        "assert 'wae' in gen_models.names()\n"
        "assert gen_models.space_module('wae') == 'wae_package.space'\n"
        "assert not {'torch', 'ray', 'wae_package.wae'} & set(sys.modules)\n"
    )
    environment = {"PYTHONPATH": f"{install.root}:{ROOT}"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_a_name_that_a_built_in_family_has_is_refused(install: Install) -> None:
    install("vae")
    with pytest.raises(InputError, match="package wae-package: family 'vae' has the name of a"):
        gen_models.names()


def test_a_name_that_two_packages_have_is_refused(install: Install) -> None:
    install()
    install(package="other-package")
    with pytest.raises(InputError, match=r"packages .*-package and .*-package: both supply"):
        gen_models.names()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            {"value": "no_such_package:WAE"},
            "broken entry point: ModuleNotFoundError: No module named",
        ),
        ({"value": "wae_package:OTHER"}, "broken entry point: .*OTHER"),
        ({"init": "WAE = 7"}, "is 7: expected a gen_models.Family"),
        (
            {"module": "import no_such_package"},
            "cannot import wae_package.wae: ModuleNotFoundError: ",
        ),
        ({"module": "1 / 0"}, "cannot import wae_package.wae: ZeroDivisionError: division"),
        ({"module": "from gen_models.vae import Config"}, "wae_package.wae has no Optim, Model"),
    ],
)
def test_a_broken_package_is_named(install: Install, broken: dict[str, str], message: str) -> None:
    install(**broken)
    assert "wae" in gen_models.names()
    with pytest.raises(InputError, match=f"family 'wae' of package wae-package: .*{message}"):
        gen_models.family("wae")
    assert gen_models.family("vae").__name__ == "gen_models.vae"


def test_a_checkpoint_names_the_package_that_supplies_its_family(
    install: Install, tmp_path: Path
) -> None:
    install()
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    learner = make_learner("vae-mlp")
    save_checkpoint(folder, "wae", learner.optim, learner)
    assert load_checkpoint(folder).family == "wae"
    (tmp_path / "wae_package-1.0.dist-info" / "entry_points.txt").unlink()
    sys.path.append(str(tmp_path / "elsewhere"))  # what is installed is read again
    try:
        with pytest.raises(InputError, match=r"unknown family 'wae'.*package wae-package"):
            load_checkpoint(folder)
    finally:
        sys.path.pop()
