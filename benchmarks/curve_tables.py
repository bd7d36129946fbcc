"""Tables of learning curves: every config of a grid, trained once by a search, and kept.

`benchmarks/data/` holds a table as an npz archive, and beside it as JSON how it was made.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import ROOT, environment, genpipe, mnist_npz, say
from pipelines.config.serialization import recorded_search
from pipelines.config.space import Range
from pipelines.store.layout import Store
from pipelines.tuning.strategy.recorded_trials import recorded_trials

DATA = ROOT / "benchmarks" / "data"
Point = Mapping[str, float]
"""Values by the flat name of the setting."""
_NAMES = ("model.latent_dim", "model.kl_weight", "optim.lr")
_ENDS = {"model.latent_dim": (2, 64), "model.kl_weight": (0.1, 10.0), "optim.lr": (1e-5, 0.1)}
_SEARCH = (
    *("--searcher", "grid", "--scheduler", "fifo", "--execution", "in_turn"),
    *("--precision", "fp32", "--features", "pca", "--picture-every", "1000"),
)
_MNIST_IMAGES = 1_000


# -- the table -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Table:
    """The learning curves of all configs of a grid."""

    axes: Mapping[str, NDArray[np.float64]]
    """The values of each setting, ascending; all above 0, because distances are logarithmic."""
    curves: NDArray[np.float32]
    """The ranking metric, smaller is better, (len(axis), …, epochs); NaN from the epoch on at
    which a config diverged."""

    @property
    def epochs(self) -> int:
        """Epochs of a config that did not diverge."""
        return int(self.curves.shape[-1])

    @property
    def num_points(self) -> int:
        """Configs."""
        return math.prod(self.curves.shape[:-1])

    @cached_property
    def digest(self) -> str:
        """A digest of the values."""
        return sha256(np.ascontiguousarray(self.curves, np.float32).tobytes()).hexdigest()[:16]

    @cached_property
    def best(self) -> float:
        """The best value of any config at any epoch."""
        return float(np.nanmin(self.curves))

    @cached_property
    def _bounds(self) -> dict[str, NDArray[np.float64]]:
        """Where the nearest value changes: geometric means of neighbours."""
        return {name: np.sqrt(axis[1:] * axis[:-1]) for name, axis in self.axes.items()}

    def index(self, point: Point) -> tuple[int, ...]:
        """Return the index of the config that is nearest to a point, by the logarithm of each
        setting."""
        return tuple(int(np.searchsorted(self._bounds[name], point[name])) for name in self.axes)

    def curve(self, point: Point) -> NDArray[np.float32]:
        """Return the values of the nearest config by epoch."""
        curve: NDArray[np.float32] = self.curves[self.index(point)]
        return curve

    @property
    def domains(self) -> dict[str, Range]:
        """The space between the ends of the axes."""
        found = {}
        for name, axis in self.axes.items():
            integer = bool(np.all(axis == np.round(axis)))
            number = int if integer else float
            found[name] = Range(number(axis[0]), number(axis[-1]), log=True, integer=integer)
        return found

    def save(self, path: Path) -> None:
        """Write the table as a compressed npz archive."""
        curves = self.curves.astype(np.float32)
        np.savez_compressed(path, allow_pickle=False, curves=curves, **dict(self.axes))

    @classmethod
    def load(cls, path: Path) -> Table:
        """Read a table that `save` wrote."""
        with np.load(path, allow_pickle=False) as archive:
            axes = {name: archive[name] for name in archive.files if name != "curves"}
            return cls(axes, archive["curves"])


# -- making one ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Recipe:
    """How a table is made."""

    name: str
    """Of the files in `benchmarks/data/`."""
    points: tuple[int, ...]
    """Values of each setting."""
    batch_size: int
    epochs: int = 10

    @property
    def file_name(self) -> str:
        """The name of the table's file."""
        return f"{self.name}.npz"


RECIPES = {
    "digits": Recipe("vae_digits", (10, 10, 20), batch_size=32),
    "mnist": Recipe("vae_mnist", (5, 6, 10), batch_size=32),
}
"""Of the table by the data that it is made with; mnist: its first images."""


def make_axes(points: Sequence[int]) -> dict[str, NDArray[np.float64]]:
    """Return the grid's values of each setting, spaced by equal factors; integers are rounded."""
    axes = {}
    for name, num in zip(_NAMES, points, strict=True):
        lower, upper = _ENDS[name]
        axis = np.geomspace(lower, upper, num)
        axes[name] = np.round(axis) if isinstance(lower, int) else axis.round(9)
    return axes


def make_table(recipe: Recipe, data: str, store: Path, data_root: Path, folder: Path) -> Table:
    """Train the configs of a table by a fused search, or go on with the search that is in `store`,
    and write the table into `folder`."""
    store.mkdir(parents=True, exist_ok=True)
    axes = make_axes(recipe.points)
    if data == "mnist":
        kept = store / "mnist.npz"
        if not kept.exists():
            mnist_npz(store, data_root, _MNIST_IMAGES)
        data = f"npz:{kept}"
    args = ["search", "vae", "--data", data, *_SEARCH]
    args += ["--epochs", str(recipe.epochs), "--batch-size", str(recipe.batch_size), "--space"]
    args += ["none", *(_domain(name, axis) for name, axis in axes.items())]
    begun = Store.at(store).search_ids()
    command = ["search", "vae", "--resume", begun[0]] if begun else args
    where = ["--store", str(store)]
    # Its own progress, on stderr, is shown.
    subprocess.run(
        [sys.executable, *genpipe([*command, *where])],
        cwd=ROOT,
        env=environment(threads=1),
        stdout=subprocess.DEVNULL,
        check=True,
    )
    table = read_table(store, axes, recipe.epochs)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / recipe.file_name
    table.save(path)
    about = {
        "command": " ".join(["genpipe", *(a if a != data else _public(data) for a in args)]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        **{name: version(name) for name in ("genpipe", "torch", "ray")},
        "configs": table.num_points,
        "diverged": int(np.isnan(table.curves[..., -1]).sum()),
        "best": table.best,
    }
    path.with_suffix(".json").write_text(json.dumps(about, indent=2) + "\n")
    say(f"{path}: {table.num_points} configs")
    return table


def _domain(name: str, axis: NDArray[np.float64]) -> str:
    number = int if isinstance(_ENDS[name][0], int) else float
    return f"{name}=choice({[number(value) for value in axis]})"


def _public(data: str) -> str:
    """Return the data's name without the folder that it lay in."""
    kind, _, path = data.partition(":")
    return f"{kind}:{Path(path).name}" if path else kind


def read_table(store: Path, axes: Mapping[str, NDArray[np.float64]], epochs: int) -> Table:
    """Read the learning curves of the one search in a store from its trials' journals."""
    where = Store.at(store)
    (search_id,) = where.search_ids()
    run = recorded_search(where, search_id, "resume")
    curves = np.full((*map(len, axes.values()), epochs), np.nan, np.float32)
    table, missing = Table(axes, curves), {*np.ndindex(*curves.shape[:-1])}
    for trial in recorded_trials(run, where.search(search_id)):
        if not trial.has_ended:
            continue
        index = table.index(trial.point)
        missing.remove(index)
        for epoch, metrics in trial.curve:
            curves[(*index, epoch - 1)] = metrics.get(run.metric, np.nan)
    if missing:
        raise SystemExit(f"{len(missing)} of {table.num_points} configs have not ended")
    return table
