"""Earlier searches that a searcher knows, and configs that a person gives it."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from support.pipeline import Capture, refused
from support.search import finish_tune, make_search, run_trial

from gen_models.core.errors import DamagedError, InputError
from pipelines.cli.main import main
from pipelines.store.layout import Store
from pipelines.tuning.search_run import SearchRun
from pipelines.tuning.strategy.knowledge import (
    Earlier,
    earlier_points,
    enqueue,
    give_points,
    read_points,
)
from pipelines.tuning.strategy.searchers import RecordedSearch


@pytest.fixture
def earlier(tmp_path: Path) -> SearchRun:
    """A search in a store whose four trials may have four epochs each."""
    space = ("none", "optim.lr=loguniform(3e-4, 1e-2)", "model.kl_weight=uniform(0, 4)")
    search = make_search(tmp_path, trials=4, space=space)
    run_trial(search, "t1", [4.0, 3.0, 2.0, 2.5])
    run_trial(search, "t2", [9.0, 8.0])  # stopped early
    run_trial(search, "t3", [5.0], end=False)
    return search


def known(search: SearchRun, **changes: Any) -> Earlier:
    run = replace(search.run, warm_start=(search.search_id,), **changes)
    return earlier_points(run, search.context.dataset, search.context.store)


def points(search: SearchRun, **changes: Any) -> list[Any]:
    return known(search, **changes).lessons


def test_trials_that_have_ended_teach_their_values(earlier: SearchRun) -> None:
    (first, complete), (_, stopped) = points(earlier)
    assert first["optim.lr"] == 2e-3 and set(first) == set(earlier.run.searched.by_name)
    assert (complete.state, complete.values) == (TrialState.COMPLETE, [2.0])
    assert (stopped.state, stopped.values) == (TrialState.PRUNED, None)
    assert stopped.reported == {1: 9.0, 2: 8.0}


def test_a_setting_that_was_not_searched_has_the_value_that_it_had(earlier: SearchRun) -> None:
    wider = (*earlier.run.space, "model.free_bits=uniform(0, 1)")
    (point, _), *_ = points(earlier, space=wider)
    assert point["model.free_bits"] == 0.0


def test_points_that_are_known_are_not_tried_again(earlier: SearchRun) -> None:
    run = replace(earlier.run, warm_start=(earlier.search_id,))
    default = {"optim.lr": run.optim.lr, "model.kl_weight": run.model.kl_weight}
    learned = points(earlier)[0][1]
    drawn = []
    for lessons in ([], [(default, learned)]):
        search = RecordedSearch(run, [], 2, "new", lessons)
        drawn.append([search.searcher.suggest(f"{number}") for number in range(3)])
    assert drawn[0][0] == default
    assert not any(point in drawn[0] for point in drawn[1])


def test_points_outside_the_new_space_are_left_out(earlier: SearchRun) -> None:
    space = ("none", "optim.lr=uniform(0.0025, 0.01)")
    run = replace(earlier.run, space=space, warm_start=(earlier.search_id,))
    lessons = points(earlier, space=space)
    search = RecordedSearch(run, [], 2, "new", lessons)
    assert (len(lessons), search.num_earlier) == (2, 1)  # of 0.002 and 0.003


def test_further_metrics_are_those_of_the_new_search(earlier: SearchRun) -> None:
    run_trial(earlier, "t4", [3.0] * 4, metrics={"val/fd": 7.0})
    *_, (_, learned) = points(earlier, further=(("val/fd", "min"),), scheduler="fifo")
    assert learned.values == [3.0, 7.0]


def test_values_that_mean_something_else_are_refused(earlier: SearchRun) -> None:
    with pytest.raises(InputError, match="warm_start = 'none': expected a search of"):
        run = replace(earlier.run, warm_start=("none",))
        earlier_points(run, earlier.context.dataset, earlier.context.store)
    other = {"metric": "val/elbo", "mode": "max"}
    with pytest.raises(InputError, match="--warm-start-anyway its best config is tried first"):
        points(earlier, **other)
    with pytest.raises(InputError, match="warm_start = 'search-1': expected a search compared"):
        points(earlier, model=replace(earlier.run.model, likelihood="gaussian"))
    taken = known(earlier, **other, warm_start_anyway=True)
    assert not taken.lessons  # beside other values they would all be good, or all bad
    assert [point["optim.lr"] for point in taken.best] == [2e-3]
    space = ("none", "optim.lr=uniform(0.0025, 0.01)")
    taken = known(earlier, **other, space=space, warm_start_anyway=True)
    assert [point["optim.lr"] for point in taken.best] == [3e-3]


def test_another_family_is_refused(earlier: SearchRun, tmp_path: Path, capsys: Capture) -> None:
    args = ["search", "gan", "--store", str(tmp_path), "--warm-start", earlier.search_id]
    assert "expected a search of gan, not" in refused(args, capsys)


# -- configs that are given -----------------------------------------------------------------------
def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", ["optim: {lr: 0.004}", "optim.lr: 0.004\n"])
def test_a_file_names_settings_nested_or_flat(
    text: str, earlier: SearchRun, tmp_path: Path
) -> None:
    (point,) = read_points(earlier.run, [write(tmp_path / "a.yaml", text)])
    own = {name: point[name] for name in point if name != "optim.lr"}
    assert point["optim.lr"] == 0.004 and own
    (path,) = enqueue(earlier.search_id, tmp_path / "a.yaml", store=tmp_path)
    assert earlier.given_points() == {path.name: dict(point)}
    (again,) = give_points(earlier.folder, [point])
    assert again != path and len(earlier.given_points()) == 2
    again.write_text("{")
    with pytest.raises(
        DamagedError, match=f"{again.name}: damaged.*; remove it, and give its point"
    ):
        earlier.given_points()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim: {lr: 5}", "optim.lr = 5.0 does not lie in loguniform(0.0003, 0.01): expected"),
        ("optim: {rl: 5}", "line 1: optim.rl: expected a setting that is searched"),
        ("optim: {lr: fast}", "optim.lr = 'fast': expected a number"),
        ("seed: 3", "line 1: seed: expected a setting that is searched"),
        ("", "expected settings, such as optim.lr: 0.001"),
        ("[1, 2]", "expected settings, such as optim.lr: 0.001"),
        ("optim: {lr: 0.001, lr: 0.002}", "stands twice"),
    ],
)
def test_a_wrong_file_is_refused(
    text: str, message: str, earlier: SearchRun, tmp_path: Path, capsys: Capture
) -> None:
    path = write(tmp_path / "a.yaml", text)
    args = ["enqueue", earlier.search_id, str(path), "--store", str(tmp_path)]
    assert message in refused(args, capsys)
    assert earlier.given_points() == {}


def test_a_setting_that_is_left_out_must_lie_in_the_space(
    earlier: SearchRun, tmp_path: Path
) -> None:
    space = ("none", "optim.lr=loguniform(1e-4, 1e-2)", "model.hidden=choice([[5], [6]])")
    path = write(tmp_path / "a.yaml", "optim: {lr: 0.001}")
    run = replace(earlier.run, space=space)
    reason = r"model.hidden = .* does not lie in .*; it is not given, and that is the search's own"
    with pytest.raises(InputError, match=reason):
        read_points(run, [path])
    with pytest.raises(InputError, match=r"expected a value of it$"):
        read_points(run, [write(path, "{model.hidden: [5], optim.lr: 5}")])


def test_a_setting_is_given_only_where_it_is_searched(earlier: SearchRun, tmp_path: Path) -> None:
    space = (
        "none",
        "model.arch=choice(['mlp', 'conv'])",
        "model.hidden=choice([[8], [16]]) if model.arch == 'mlp'",
    )
    run = replace(earlier.run, space=space, require=("model.arch != 'conv' or seed > 0",))
    path = write(tmp_path / "a.yaml", "model: {arch: mlp, hidden: [16]}")
    assert read_points(run, [path]) == [{"model.arch": "mlp", "model.hidden": "[16]"}]
    with pytest.raises(InputError, match=r"expected only where model\.arch == 'mlp'"):
        read_points(run, [write(path, "model: {arch: conv, hidden: [16]}")])
    with pytest.raises(InputError, match="expected a config with"):
        read_points(run, [write(path, "model: {arch: conv}")])


def test_commands_that_give_points_at_once_overwrite_none(tmp_path: Path) -> None:
    folder = Store.at(tmp_path).search("s")
    with ThreadPoolExecutor(8) as pool:
        given = [pool.submit(give_points, folder, [{"optim.lr": n}]) for n in range(24)]
    paths = [path for each in given for path in each.result()]
    assert len(set(paths)) == 24
    found = {json.loads(path.read_text())["optim.lr"] for path in folder.given.iterdir()}
    assert found == set(range(24))


def test_more_configs_than_trials_are_left_are_refused(earlier: SearchRun, tmp_path: Path) -> None:
    finish_tune(earlier)
    path = write(tmp_path / "a.yaml", "optim.lr: 0.005")
    with pytest.raises(InputError, match="enqueue = 2: expected at most 1, the trials that are"):
        enqueue(earlier.search_id, path, path, store=tmp_path)
    enqueue(earlier.search_id, path, store=tmp_path)
    with pytest.raises(InputError, match="enqueue = 1: expected at most 0, the trials that are"):
        enqueue(earlier.search_id, path, store=tmp_path)  # the first one waits
    with pytest.raises(InputError, match="search = 'two': expected a search of"):
        enqueue("two", path, store=tmp_path)
    grid = replace(earlier.run, searcher="grid", scheduler="fifo")
    with pytest.raises(InputError, match=r"a.yaml: expected nothing with grid"):
        read_points(grid, [path])


def test_the_command_says_where_the_configs_are(
    earlier: SearchRun, tmp_path: Path, capsys: Capture
) -> None:
    path = write(tmp_path / "a.yaml", "optim.lr: 0.004")
    args = ["enqueue", earlier.search_id, str(path), "--store", str(tmp_path)]
    assert main(args) == 0
    where = Path(capsys.readouterr().out.strip())
    assert where.parent == Store.at(tmp_path).search(earlier.search_id).given and where.exists()
