"""A family in a package of its own, of which one config ends the process that trains it."""

from pathlib import Path

from support.pipeline import ROOT

LINEAR = ROOT / "tests" / "data" / "linear_models"
"""What the family is like, but for its end."""
DEADLY = 3
"""The latent dimension that ends the process, at its first step."""

_FAMILY = """
import ctypes, os
from linear_models.linear import Config, Model as Linear, Optim

class Model(Linear):
    def draws(self, num, generator):
        if self.config.latent_dim == {deadly} and os.environ.get("BRITTLE") == "segfault":
            ctypes.string_at(0)
        if self.config.latent_dim == {deadly} and os.environ.get("BRITTLE") == "exit":
            os._exit(1)
        return {{}}
"""
_SPACE = """
from ray import tune
from tune_spaces import Space

SPACE = Space(
    domains={"model": {"latent_dim": tune.choice([2, 3, 4, 5])}},
    metric="val/squared_error", mode="min", epochs=4, grace_period=1,
)
"""
_REGISTRATION = """
from gen_models.core.families import Family

BRITTLE = Family("brittle_models.brittle", "brittle_models.brittle_space")
"""


def write_brittle_family(folder: Path) -> str:
    """Write the package; return the PYTHONPATH with which a process has the family `brittle`. It
    is deadly where the environment's BRITTLE is `segfault` or `exit`."""
    package = folder / "brittle_models"
    package.mkdir()
    (package / "__init__.py").write_text(_REGISTRATION)
    (package / "brittle.py").write_text(_FAMILY.format(deadly=DEADLY))
    (package / "brittle_space.py").write_text(_SPACE)
    metadata = folder / "brittle_models-1.0.dist-info"
    metadata.mkdir()
    name = "Metadata-Version: 2.1\nName: brittle-models\nVersion: 1.0\n"
    (metadata / "METADATA").write_text(name)
    entry_point = "brittle = brittle_models:BRITTLE"
    (metadata / "entry_points.txt").write_text(f"[genpipe.families]\n{entry_point}\n")
    return f"{folder}:{LINEAR}:{ROOT}"
