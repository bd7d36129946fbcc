"""Configs of runs and searches: defaults, and every check of a setting."""

from dataclasses import replace
from typing import Any

import pytest

from gen_models.core.errors import InputError
from pipelines.config.evaluation import HeldOutConfig
from pipelines.config.objectives import Objective
from pipelines.config.run import Run, Train, as_train, defaults
from pipelines.config.search import Search, with_objectives
from pipelines.config.serialization import make_config
from tune_spaces import space

FD: tuple[tuple[str, str], ...] = (("val/fd", "min"),)
AS_MANY = "as many as a trial may run; see --grace-period"
AT_LEAST_1 = "expected an integer of at least 1"
WRONG_RUNS: dict[str, tuple[dict[str, Any], str]] = {
    "epochs": ({"epochs": 0}, f"epochs = 0: {AT_LEAST_1}"),
    "batch size": ({"batch_size": 0}, f"batch_size = 0: {AT_LEAST_1}"),
    "workers": ({"num_workers": 0}, f"num_workers = 0: {AT_LEAST_1}"),
    "pictures": ({"picture_every": 0}, f"picture_every = 0: {AT_LEAST_1}"),
    "checkpoints": ({"keep_checkpoints": 0}, f"keep_checkpoints = 0: {AT_LEAST_1}"),
    "seed": ({"seed": -1}, "seed = -1: expected an integer of at least 0"),
    "failures": ({"max_failures": -1}, "max_failures = -1: expected an integer of at least 0"),
    "share": (
        {"batch_size": 128, "num_workers": 3},
        "batch_size = 128: expected a multiple of the number of workers, 3",
    ),
    "share of none": (
        {"batch_size": 2, "num_workers": 4},
        "batch_size = 2: expected a multiple of the number of workers, 4",
    ),
    "model": ({"model": {"latent_dim": 0}}, f"latent_dim = 0: {AT_LEAST_1}"),
    "optim": ({"optim": {"lr": 0.0}}, "lr = 0.0: expected a number above 0 and below 10"),
}
WRONG_SEARCHES: dict[str, tuple[dict[str, Any], str]] = {
    "trials": ({"trials": 0}, f"trials = 0: {AT_LEAST_1}"),
    "grace": ({"epochs": 2}, f"grace_period = 3: expected from 1 to 2 epochs, {AS_MANY}"),
    "no grace": (
        {"grace_period": 0},
        f"grace_period = 0: expected from 1 to 20 epochs, {AS_MANY}",
    ),
    "grace of pbt": (
        {"scheduler": "pbt", "epochs": 2},
        f"grace_period = 3: expected from 1 to 2 epochs, {AS_MANY}",
    ),
    "factor": (
        {"reduction_factor": 1},
        "reduction_factor = 1: expected an integer of at least 2",
    ),
    "grid": ({"grid_points": 0}, f"grid_points = 0: {AT_LEAST_1}"),
    "concurrent": ({"max_concurrent": 0}, f"max_concurrent = 0: {AT_LEAST_1}"),
    "metric twice": (
        {"further": (("val/nll", "min"),)},
        "metric = 'val/nll val/nll': expected each metric once",
    ),
    "confirm two": (
        {"further": FD, "confirm": 1},
        "confirm = 1: expected 0 with several metrics: `genpipe confirm` takes a trial of the "
        "Pareto front",
    ),
    "seeds": ({"seeds": 1}, "seeds = 1: expected an integer of at least 2"),
    "confirm": ({"confirm": -1}, "confirm = -1: expected an integer of at least 0"),
    "confirm pbt": (
        {"confirm": 2, "scheduler": "pbt"},
        "confirm = 2: expected 0 with pbt, because its trials change their settings while they "
        "run",
    ),
    "fuse": ({"fuse": 0}, "fuse = 0: expected auto, off, or an integer of at least 1"),
    "fused workers": (
        {"fuse": 2, "num_workers": 2},
        "fuse = 2: expected auto or off, because trials of 2 workers cannot be fused",
    ),
    **{
        f"{scheduler} without fusion": (
            {"scheduler": scheduler, **settings},
            f"scheduler = '{scheduler}': expected asha or fifo, because only fused trials can be "
            "paused: --num-workers 1, no --fuse off",
        )
        for scheduler in ("hyperband", "pbt")
        for settings in ({"fuse": "off"}, {"num_workers": 2})
    },
    "warm random": (
        {"searcher": "random", "warm_start": ("s",)},
        "warm_start = ('s',): expected nothing with random, "
        "whose choices do not depend on results",
    ),
    "pbt by tpe": (
        {"scheduler": "pbt", "searcher": "tpe"},
        "searcher = 'tpe': expected random, grid or qmc, because it changes settings itself: pbt",
    ),
}


@pytest.mark.parametrize("kind", [Train, Search])
@pytest.mark.parametrize("case", WRONG_RUNS)
def test_a_wrong_setting_of_a_run_is_named(case: str, kind: type[Run]) -> None:
    settings, message = WRONG_RUNS[case]
    with pytest.raises(InputError) as caught:
        make_config(kind, "vae", settings)
    assert str(caught.value) == message


@pytest.mark.parametrize("case", WRONG_SEARCHES)
def test_a_wrong_setting_of_a_search_is_named(case: str) -> None:
    settings, message = WRONG_SEARCHES[case]
    with pytest.raises(InputError) as caught:
        make_config(Search, "vae", settings)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "settings",
    [
        {"scheduler": "fifo", "epochs": 1},  # nothing waits for the grace period
        {"scheduler": "hyperband", "epochs": 1},
        {"scheduler": "pbt", "searcher": "grid"},
        {"scheduler": "fifo", "further": FD},
        {"fuse": "off", "num_workers": 2},
        {"fuse": 1},
        {"trials": 1, "grid_points": 1, "max_concurrent": 1, "reduction_factor": 2, "seeds": 2},
    ],
)
def test_settings_at_their_bounds_are_accepted(settings: dict[str, Any]) -> None:
    assert make_config(Search, "vae", settings)


def test_defaults_are_those_of_the_family_and_its_space(family: str) -> None:
    own = space(family)
    for run in (defaults(Train, family), search := defaults(Search, family)):
        assert run.family == family and run.objective == Objective(own.metric, own.mode)
        assert run.objectives == (run.objective,) and run.epochs == own.epochs
        assert run.model == type(run.model)() and run.optim == type(run.optim)()
    assert search.grace_period == own.grace_period
    with pytest.raises(InputError, match=r"unknown family 'vea' \(did you mean 'vae'\?\)"):
        defaults(Train, "vea")


def test_the_data_root_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GENPIPE_DATA_ROOT", raising=False)
    assert str(defaults(Train, "vae").data_root) == "data"
    monkeypatch.setenv("GENPIPE_DATA_ROOT", "/mnt/data")
    assert str(defaults(Train, "vae").data_root) == "/mnt/data"


def test_scheduler_and_searcher_follow_from_each_other() -> None:
    search = defaults(Search, "vae")
    assert (search.chosen_scheduler, search.chosen_searcher) == ("asha", "tpe")
    two = replace(search, further=FD)
    assert (two.chosen_scheduler, two.chosen_searcher) == ("fifo", "tpe")
    pbt = replace(search, scheduler="pbt")
    assert (pbt.chosen_scheduler, pbt.chosen_searcher) == ("pbt", "random")
    given = replace(search, scheduler="hyperband", searcher="grid")
    assert (given.chosen_scheduler, given.chosen_searcher) == ("hyperband", "grid")


def test_trials_are_fused_if_each_has_one_worker() -> None:
    search = defaults(Search, "vae")
    assert search.is_fused and replace(search, fuse=4).is_fused
    assert not replace(search, fuse="off").is_fused
    assert not replace(search, num_workers=2).is_fused


def test_objectives_are_replaced() -> None:
    elbo, fd = Objective("val/elbo", "max"), Objective("val/fd", "min")
    search = with_objectives(defaults(Search, "vae"), [elbo, fd])
    assert search.objectives == (elbo, fd) and search.objective == elbo
    assert with_objectives(search, [fd]).objectives == (fd,)
    train = with_objectives(defaults(Train, "vae"), [elbo])
    assert train.objectives == (elbo,)
    with pytest.raises(InputError) as caught:
        with_objectives(train, [elbo, fd])
    assert str(caught.value) == (
        "metric = 'val/elbo val/fd': expected one, because only a search takes several"
    )


def test_a_search_s_config_of_one_run(search: Search) -> None:
    run = as_train(search, "mine")
    assert type(run) is Train and run.name == "mine"
    assert (run.model, run.optim, run.seed) == (search.model, search.optim, search.seed)
    assert (run.keep_checkpoints, run.data_root) == (4, search.data_root)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num": 5}, "num = 5: expected at least 6"),
        ({"importance_samples": 0}, f"importance_samples = 0: {AT_LEAST_1}"),
        ({"images": 0}, f"images = 0: {AT_LEAST_1}"),
    ],
)
def test_a_wrong_setting_of_an_evaluation_is_named(settings: dict[str, int], message: str) -> None:
    with pytest.raises(InputError) as caught:
        HeldOutConfig(**settings)
    assert str(caught.value) == message
