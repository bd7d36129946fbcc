"""How good the configs are that each searcher and scheduler finds, for the same epochs.

Searches are replayed by Ray Tune on a table of 2,000 configs of the VAE on scikit-learn's digits,
which were trained once (`benchmarks/data/`): a trial looks its values up, so that thousands of
searches take minutes. A config is that of the table which is nearest to the point that a searcher
chose. All else is as in a search of four trials at a time, with the defaults of `genpipe search`,
but that the family's default config is not tried first.

    python -m benchmarks.search_quality
    python -m benchmarks.search_quality --make-table digits     # trains the configs anew
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any, Literal, cast, get_args

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table as TextTable

from benchmarks.curve_tables import DATA, RECIPES, Point, Table, make_table
from benchmarks.figures import DATA_ROOT, finish, say, scratch, setting
from benchmarks.replay import Improvement, Replay, make_run, replay
from pipelines.config.search import INDEPENDENT, PERTURBS, Scheduler, Searcher

OURS, RANDOM = "tpe+asha", "random+fifo"
_EPOCHS_A_TRIAL = {"fifo": 10, "pbt": 10, "pb2": 10}
"""Epochs that a trial takes, to plan the number of trials; of the other schedulers 5."""
_SLOW = ("gp", "pb2")
"""Searchers and schedulers that take long to choose a point."""
_BOOTSTRAPS, _SAY_EVERY = 2_000, 60.0
_EARLIER_TRIALS, _COLD_TRIALS, _MOST_TRIALS = 100, 30, 100
"""Of the comparison of a warm with a cold start: trials of the earlier search; trials after which
the cold start has the value to reach; trials of both."""


@dataclass(frozen=True)
class Options:
    """Compare searchers and schedulers at the same number of epochs."""

    cells: tuple[str, ...] = ()
    """SEARCHER+SCHEDULER …; by default all."""
    epochs: tuple[int, ...] = (200, 1_000)
    """Epochs of all trials together after which the best value is compared."""
    seeds: int = 50
    """Searches of each cell."""
    slow_seeds: int = 8
    """The same of gp and pb2, which take seconds to choose a point."""
    longest: int = 10_000
    """Epochs that random search has to reach the value of tpe+asha after the first of `epochs`."""
    concurrent: int = 4
    """Trials at a time."""
    grid_points: int = 4
    """grid: values of each setting."""
    warm_start: bool = True
    """Compare a warm with a cold start, too."""
    make_table: Literal["digits", "mnist"] | None = None
    """Train the configs of a table, or go on with it, write the table, and stop."""
    points: tuple[int, int, int] | None = None
    """make_table: values of latent_dim, kl_weight and lr; by default those of the kept tables."""
    store: Path = Path("runs/search_quality")
    """Where replayed searches are kept, so that a second start goes on; also a table's trials."""
    tables: Path | None = None
    """Folder of the tables; by default benchmarks/data."""
    data_root: Path = DATA_ROOT
    """Where torchvision's MNIST lies; the environment's GENPIPE_DATA_ROOT is the default."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    if options.make_table:
        finish("search_quality_table", _make_table(options, options.make_table), found)
        return
    if unknown := {*options.cells} - {*all_cells()}:
        raise SystemExit(f"cells = {' '.join(unknown)}: expected some of {' '.join(all_cells())}")
    replays, figures = Replays(options), dict[str, float]()
    cells = options.cells or tuple(all_cells())
    if {OURS, RANDOM} <= {*cells}:
        figures |= _equal_cost(options, replays)
    if options.warm_start:
        figures |= _warm_start(options, replays)
    histories: dict[str, list[History]] = {cell: [] for cell in cells}
    for seed in range(options.seeds):
        for cell in cells:
            if seed < num_seeds(cell, options):
                histories[cell].append(replays.history(cell, seed, _budget(cell, options)))
    for epochs in options.epochs:
        regrets = {
            cell: [_best(each, epochs) - replays.table.best for each in kept]
            for cell, kept in histories.items()
        }
        _show(epochs, regrets)
        for cell, values in regrets.items():
            name = cell.replace("+", "_")
            figures[f"regret_at_{epochs}_epochs_{name}"] = mean(values)
            if len(values) > 1:
                error = stdev(values) / math.sqrt(len(values))
                figures[f"regret_at_{epochs}_epochs_{name}_error"] = error
    figures |= {f"seeds_{cell.replace('+', '_')}": len(kept) for cell, kept in histories.items()}
    finish("search_quality", figures, found)


def _make_table(options: Options, data: str) -> dict[str, float]:
    recipe = RECIPES[data]
    if options.points:
        recipe = replace(recipe, points=options.points)
    start = time.perf_counter()
    folder = options.tables or DATA
    table = make_table(recipe, data, options.store / recipe.name, options.data_root, folder)
    minutes = (time.perf_counter() - start) / 60
    return {"configs": table.num_points, "best": table.best, "minutes_of_this_start": minutes}


# -- cells: a searcher with a scheduler -----------------------------------------------------------
def all_cells() -> list[str]:
    """Return every searcher with every scheduler that goes with it."""
    pairs = [(a, b) for a in get_args(Searcher) for b in get_args(Scheduler)]
    return [f"{a}+{b}" for a, b in pairs if b not in PERTURBS or a in INDEPENDENT]


def split(cell: str) -> tuple[Searcher, Scheduler]:
    """Return the searcher and the scheduler of a cell."""
    searcher, scheduler = cell.split("+")
    return cast(Searcher, searcher), cast(Scheduler, scheduler)


def num_seeds(cell: str, options: Options) -> int:
    """Return how many searches of a cell are replayed; a grid is the same with every seed."""
    searcher, scheduler = split(cell)
    if searcher == "grid" and scheduler not in PERTURBS:
        return 1
    is_slow = searcher in _SLOW or scheduler in _SLOW
    return min(options.seeds, options.slow_seeds) if is_slow else options.seeds


def _budget(cell: str, options: Options) -> int:
    """Return the epochs that the trials of a search of a cell train in all."""
    return max(options.longest, *options.epochs) if cell == RANDOM else max(options.epochs)


History = Sequence[Improvement]
"""The improvements of a search."""


def _best(history: History, epochs: float) -> float:
    """Return the best value of a search after so many epochs."""
    return min((each.value for each in history if each.epochs <= epochs), default=math.inf)


class Replays:
    """Replays searches, and keeps what each improved in a file, so that none is replayed twice."""

    def __init__(self, options: Options) -> None:
        self._options, folder = options, options.tables or DATA
        self.table = Table.load(folder / RECIPES["digits"].file_name)
        self._other = folder / RECIPES["mnist"].file_name
        options.store.mkdir(parents=True, exist_ok=True)
        self._file, self._kept = options.store / "replays.jsonl", dict[str, History]()
        lines = self._file.read_text().splitlines() if self._file.exists() else []
        for line in lines:
            content = json.loads(line)
            self._kept[content["key"]] = [Improvement(*each) for each in content["improvements"]]
        self._said = time.monotonic()

    @cached_property
    def other_table(self) -> Table:
        """The table of other data."""
        return Table.load(self._other)

    def history(self, cell: str, seed: int, epochs: int) -> History:
        """Return the improvements of a search of a cell on the table, by its seed."""
        return self._keep(
            (cell, seed, epochs, self.table.digest, self._options.grid_points),
            lambda scratch: self._replay(cell, seed, scratch, max_epochs=epochs),
        )

    def start(self, seed: int, *, warm: bool) -> History:
        """Return the improvements of a search on the table of other data, by its seed: from a cold
        start, or with the best point of a search on the digits first."""

        def run(scratch: Path) -> Replay:
            first: Sequence[Point] = ()
            if warm:
                before = (self._options.seeds + seed, scratch)  # another seed than the cold start
                first = self._replay(OURS, *before, trials=_EARLIER_TRIALS).best_points()
            return self._replay(
                OURS, seed, scratch, trials=_MOST_TRIALS, first=first, table=self.other_table
            )

        digests = (self.table.digest, self.other_table.digest)
        return self._keep(("warm" if warm else "cold", seed, self._options.seeds, *digests), run)

    def _replay(
        self,
        cell: str,
        seed: int,
        scratch: Path,
        *,
        trials: int | None = None,
        max_epochs: float = math.inf,
        table: Table | None = None,
        first: Sequence[Point] = (),
    ) -> Replay:
        searcher, scheduler = split(cell)
        if trials is None:
            trials = int(max_epochs) // _EPOCHS_A_TRIAL.get(scheduler, 5)
        table, points = table or self.table, self._options.grid_points
        run = make_run(table, searcher, scheduler, trials=trials, seed=seed, grid_points=points)
        at_once = self._options.concurrent
        return replay(table, run, scratch, concurrent=at_once, max_epochs=max_epochs, first=first)

    def _keep(self, key: tuple[Any, ...], run: Callable[[Path], Replay]) -> History:
        """Return what is kept of a replay; if nothing is, run it and keep it."""
        text = json.dumps([*key, self._options.concurrent])
        if text not in self._kept:
            with scratch() as folder:
                improvements = run(folder).improvements
            line = {"key": text, "improvements": [astuple(each) for each in improvements]}
            with self._file.open("a") as file:
                file.write(json.dumps(line) + "\n")
            self._kept[text] = improvements
            if time.monotonic() - self._said > _SAY_EVERY:
                self._said = time.monotonic()
                say(f"{len(self._kept)} searches replayed, the last one {text}")
        return self._kept[text]


# -- figures -------------------------------------------------------------------------------------
def _equal_cost(options: Options, replays: Replays) -> dict[str, float]:
    """Compare the epochs of random search with those of ours for one value: the median of what
    ours has after the first of `options.epochs`."""
    ours, random = (
        [replays.history(cell, seed, _budget(cell, options)) for seed in range(options.seeds)]
        for cell in (OURS, RANDOM)
    )
    epochs = options.epochs[0]
    bests = [_best(history, epochs) for history in ours]

    def ratio(seeds: Sequence[int], others: Sequence[int]) -> float:
        target = median(bests[seed] for seed in seeds)
        reached = [_reached(random[other], target) for other in others]
        return median(each.epochs if each else options.longest for each in reached) / epochs

    target = median(bests)
    unreached = sum(_reached(history, target) is None for history in random)
    return {
        **_with_interval("tpe_asha_over_random_equal_cost", ratio, options.seeds),
        "equal_cost_regret": target - replays.table.best,
        "equal_cost_unreached": unreached,
    }


def _warm_start(options: Options, replays: Replays) -> dict[str, float]:
    """Compare the trials of a cold with those of a warm start for one value: the median of what
    the cold start has after `_COLD_TRIALS` trials."""
    cold, warm = (
        [replays.start(seed, warm=is_warm) for seed in range(options.seeds)]
        for is_warm in (False, True)
    )
    bests = [
        min((each.value for each in history if each.trials <= _COLD_TRIALS), default=math.inf)
        for history in cold
    ]

    def trials(histories: Sequence[History], target: float) -> float:
        reached = [_reached(history, target) for history in histories]
        return median(each.trials if each else _MOST_TRIALS for each in reached)

    def ratio(seeds: Sequence[int], others: Sequence[int]) -> float:
        target = median(bests[seed] for seed in seeds)
        cold_trials = trials([cold[seed] for seed in seeds], target)
        return cold_trials / trials([warm[other] for other in others], target)

    target = median(bests)
    return {
        **_with_interval("warm_start_over_cold", ratio, options.seeds),
        "cold_trials": trials(cold, target),
        "warm_trials": trials(warm, target),
        "warm_regret": target - replays.other_table.best,
    }


def _reached(history: History, value: float) -> Improvement | None:
    """Return when a search reached a value; None if it did not."""
    return next((each for each in history if each.value <= value), None)


def _with_interval(
    name: str, ratio: Callable[[Sequence[int], Sequence[int]], float], num: int
) -> dict[str, float]:
    """Return a ratio of medians over seeds, with the 5th and the 95th percentile over bootstrap
    resamples of both sides' seeds."""
    generator = np.random.default_rng(0)
    drawn = [ratio(*generator.integers(num, size=(2, num)).tolist()) for _ in range(_BOOTSTRAPS)]
    low, high = np.percentile(drawn, [5, 95]).tolist()
    return {name: ratio(range(num), range(num)), f"{name}_low": low, f"{name}_high": high}


def _show(epochs: int, regrets: Mapping[str, Sequence[float]]) -> None:
    """Print the regrets as a table: a row for each searcher, a column for each scheduler."""
    columns = [b for b in get_args(Scheduler) if any(c.endswith(f"+{b}") for c in regrets)]
    rows = [a for a in get_args(Searcher) if any(c.startswith(f"{a}+") for c in regrets)]
    shown = TextTable(f"regret after {epochs:,} epochs", *columns, box=None)
    for row in rows:
        shown.add_row(row, *(_text(regrets.get(f"{row}+{column}", ())) for column in columns))
    Console(stderr=True, width=150).print(shown)


def _text(values: Sequence[float]) -> str:
    """Return a mean with its standard error and the number of values."""
    if not values:
        return ""
    error = f" ± {stdev(values) / math.sqrt(len(values)):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{error} ({len(values)})"


if __name__ == "__main__":
    main()
