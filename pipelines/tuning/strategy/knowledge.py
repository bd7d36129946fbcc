"""What a searcher knows or is given beside its own trials: earlier searches, and configs that a
person wants tried."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gen_models.core.config import flatten, nest
from gen_models.core.errors import DamagedError, InputError, did_you_mean, require
from pipelines.analysis.comparability import comparison_key
from pipelines.config.search import Search
from pipelines.config.serialization import recorded_search, to_dict, with_settings
from pipelines.config.space import as_text
from pipelines.config.yaml_text import read_yaml
from pipelines.data.dataset import Dataset
from pipelines.store.journal import as_json, read_json
from pipelines.store.layout import SearchFolder, Store
from pipelines.training.run_info import search_info
from pipelines.tuning.strategy.recorded_trials import recorded_trials
from pipelines.tuning.strategy.searchers import Lesson, RecordedTrial, lesson, searched_params
from pipelines.tuning.strategy.space import is_allowed, refusal

_log = logging.getLogger(__name__)

Point = Mapping[str, Any]
_BEST = 1
"""Points of an earlier search that are tried first, if its values mean something else. More of
them lie beside each other, and keep a searcher from looking elsewhere: replayed by
`benchmarks.search_quality`, a search on MNIST took 1.3 times the trials of a cold start with five
of the digits' points, and 1.06 times with one."""


# -- earlier searches -----------------------------------------------------------------------------
@dataclass(frozen=True)
class Earlier:
    """What a search takes from earlier ones. A setting that was not searched then has the value
    that it had."""

    lessons: list[tuple[Point, Lesson]] = field(default_factory=list)
    """Points, and what they teach the searcher."""
    best: list[Point] = field(default_factory=list)
    """Points to try first: the best of searches whose values mean something else, and would teach
    that all its points are good, or all bad."""


def earlier_points(run: Search, dataset: Dataset, store: Store) -> Earlier:
    """Return the points of the searches that `--warm-start` names.

    Raises `InputError` at a search that is unknown or of another family, and, unless
    `--warm-start-anyway` allows it, at one whose values mean something else: another metric, other
    data.
    """
    found = Earlier()
    for search_id in run.warm_start:
        before, folder = recorded_search(store, search_id, "warm_start"), store.search(search_id)
        same = before.family == run.family
        require(same, "warm_start", search_id, f"a search of {run.family}, not {before.family}")
        refused = _why_not_comparable(run, dataset, before, folder)
        if refused and not run.warm_start_anyway:
            raise InputError(refused)
        read = run
        if refused:  # its trials are ranked by its own metrics
            read = replace(run, metric=before.metric, mode=before.mode, further=before.further)
        ended = [t for t in recorded_trials(read, folder, of=before) if t.has_ended]
        if refused:
            found.best.extend(best_points(read, ended))
        else:
            found.lessons.extend(
                (trial.point, lesson(run, trial.curve, diverged=trial.diverged)) for trial in ended
            )
    return found


def best_points(run: Search, trials: Sequence[RecordedTrial]) -> list[Point]:
    """Return the best points of trials, by the metric of `run`, that lie in its space."""
    metric = run.metric
    costs = [
        (min(run.objective.cost(values[metric]) for _, values in trial.curve), number)
        for number, trial in enumerate(trials)
        if not trial.diverged and trial.curve and all(metric in each for _, each in trial.curve)
    ]
    ranked = [trials[number].point for _, number in sorted(costs)]
    return [p for p in ranked if not refusal(run, p) and is_allowed(run, run.searched, p)][:_BEST]


def _why_not_comparable(
    run: Search, dataset: Dataset, before: Search, folder: SearchFolder
) -> str:
    """Return why the values of an earlier search mean something else; "" if they mean the same."""
    info = folder.journal.info()
    if info is None:
        return ""  # no trial has begun
    own = search_info(run, dataset, search_id="", experiment="", searched=())
    wanted = comparison_key(own.params, own.tags, run.metric)
    known = comparison_key(info.params, info.tags, before.metric)
    if wanted == known and run.mode == before.mode:
        return ""
    anyway = "with --warm-start-anyway its best config is tried first"
    expected = f"a search compared with: {wanted}; and not with: {known}; {anyway}"
    return f"warm_start = {folder.name!r}: expected {expected}"


# -- configs that are given -----------------------------------------------------------------------
def read_points(run: Search, paths: Sequence[Path]) -> list[Point]:
    """Return the points in YAML files, each a config's searched settings, nested or flat.

    A setting that is not given has the search's own value. Raises `InputError` at a setting that
    is not searched, a value outside its domain, and a point that the search refuses; a grid has
    all its points already.
    """
    if paths and run.chosen_searcher == "grid":
        raise InputError(
            f"enqueue = {paths[0]}: expected nothing with grid, which tries its points"
        )
    return [_read_point(run, path) for path in paths]


def _read_point(run: Search, path: Path) -> Point:
    document, searched = read_yaml(path), run.searched
    content = document.content
    is_mapping = isinstance(content, Mapping) and bool(content)
    require(is_mapping, document.where, content, "settings, such as optim.lr: 0.001")
    given = flatten(nest(flatten(content)))
    for name in given:
        hint = did_you_mean(name, searched.by_name)
        known = ", ".join(searched.by_name)
        if name not in searched.by_name:
            message = f"{name}: expected a setting that is searched: {known}{hint}"
            raise document.error(message, *name.split("."))
    values = flatten(to_dict(with_settings(run, nest(given))))
    active = [setting.name for setting in searched.active(values)]
    for name in given:
        if name not in active:
            condition = searched.by_name[name].condition
            assert condition
            message = f"{name}: expected only where {condition.text}"
            raise document.error(message, *name.split("."))
    point = {name: as_text(values[name]) for name in active}
    if reason := refusal(run, point):
        left_out = [name for name in active if name not in given and reason.startswith(f"{name} ")]
        own = "; it is not given, and that is the search's own value" if left_out else ""
        raise InputError(f"{document.where}: {reason}: expected a value of it{own}")
    if not is_allowed(run, searched, point):
        required = " and ".join(each.text for each in run.required)
        raise InputError(f"{document.where}: expected a config with {required}")
    return point


def give_points(folder: SearchFolder, points: Sequence[Point]) -> list[Path]:
    """Write points into a search's folder, from which its process takes them; return the files."""
    paths = []
    for point in points:
        taken = [int(path.stem) for path in folder.files.list(folder.given, "*.json")]
        number = max(taken, default=0) + 1
        # Another command may give points at the same time.
        while not folder.files.create(path := folder.given / f"{number:06d}.json", as_json(point)):
            number += 1
        paths.append(path)
    return paths


def given_points(folder: SearchFolder) -> dict[str, Point]:
    """Return the points that were given to a search, by the names of their files. Raises
    `DamagedError` at a file that holds none."""
    paths = folder.files.list(folder.given, "*.json")
    try:
        return {path.name: read_json(folder.files, path) for path in paths}
    except DamagedError as error:
        again = f"remove it, and give its point again: genpipe enqueue {folder.name} FILE"
        raise DamagedError(f"{error}; {again}") from error


def enqueue(search_id: str, *paths: str | Path, store: str | Path | None = None) -> list[Path]:
    """Have a search try configs of one's own next; return the files that it takes them from.

    `paths`: YAML files with values of the searched settings. A search that runs takes them with
    its next trials, one that does not when it is resumed; they count among its trials. Raises
    `InputError` at an unknown search, at a file as `read_points` does, and if too few trials are
    left.

    >>> import genpipe
    >>> genpipe.enqueue("SEARCH_ID", "mine.yaml", store="runs")
    """
    where = Store.at(store)
    run, folder = recorded_search(where, search_id, "search"), where.search(search_id)
    points = read_points(run, [Path(path) for path in paths])
    tried = [trial.params for trial in recorded_trials(run, folder)]
    waiting = [p for p in given_points(folder).values() if searched_params(run, p) not in tried]
    left = max(0, run.trials - len(folder.trials()) - len(waiting))
    more = f"at most {left}, the trials that are left; `--resume {search_id} --trials N` adds some"
    require(len(points) <= left, "enqueue", len(points), more)
    return give_points(folder, points)
