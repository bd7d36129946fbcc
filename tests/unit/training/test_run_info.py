"""What is recorded of a run before its first epoch: its label, and which parameters are shown."""

from collections.abc import Mapping
from typing import Any

import pytest

from pipelines.config.run import Train
from pipelines.config.search import Search
from pipelines.config.serialization import make_config
from pipelines.training.preflight import load_data
from pipelines.training.run_info import run_info, search_info, trial_label

LABELS: Mapping[str, Mapping[str, Any]] = {
    "ld4 kl0.76 lr4e-3": {"model.latent_dim": 4, "model.kl_weight": 0.7612, "optim.lr": 0.00403},
    "dlr5.1e-4 glr1e-4": {"optim.discriminator.lr": 0.000512, "optim.generator.lr": 1e-4},
    "seed 5": {"seed": 5},
    "hidden (512, 512) arch conv": {"model.hidden": "(512, 512)", "model.arch": "conv"},
    "bs64 fb0 lr12 ns1.5e4": {
        **{"batch_size": 64, "model.free_bits": 0.0, "optim.lr": 12.0},
        "model.noise_std": 15000.0,
    },
    "": {},
}


@pytest.mark.parametrize("label", LABELS)
def test_a_trial_is_called_by_what_is_searched(label: str) -> None:
    assert trial_label(LABELS[label], list(LABELS[label])) == label


def test_what_is_searched_or_departs_from_the_default_is_shown() -> None:
    searched = ["model.latent_dim", "optim.lr"]
    run = make_config(Search, "vae", {"space": ("none", "optim.lr=loguniform(1e-4, 0.1)")})
    trial = make_config(Train, "vae", {"optim": {"lr": 0.02}, "batch_size": 64})
    known: dict[str, Any] = {"experiment": "vae-digits", "search_id": "s"}
    info = run_info(trial, load_data(run), kind="trial", name="a", searched=searched, **known)
    assert info.label == "ld16 lr0.02"
    assert list(info.shown) == [*searched, "data", "epochs", "batch_size", "seed"]
    assert info.params["model.arch"] == trial.model.arch  # recorded all the same

    of_search = search_info(run, load_data(run), **known, searched=["optim.lr"])
    assert "optim.lr" not in of_search.params  # no value is the search's
    assert of_search.params["space.optim.lr"] == "loguniform(0.0001, 0.1)"
    assert {"space.optim.lr", "trials", "data"} <= set(of_search.shown) <= set(of_search.params)
