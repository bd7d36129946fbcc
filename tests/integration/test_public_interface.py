"""`import genpipe`: the functions in one process, which they leave as it was."""

import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import sklearn.mixture  # noqa: F401  (filters warnings when it is imported)
import torch
from support.pipeline import check_recorded

import genpipe
from gen_models.training import cpu
from pipelines.report.results import SearchResult, TrainResult

pytestmark = [pytest.mark.slow, pytest.mark.long]
FAST: dict[str, Any] = {
    "batch_size": 256,
    "epochs": 2,
    "features": "pca",
    "model": {"hidden": (32,)},
}


WHERE_IMPORTED = """
import importlib.abc, sys, threading

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch._dynamo.polyfills.operator":
            print(name, threading.current_thread() is threading.main_thread())

sys.meta_path.insert(0, Finder())
import genpipe

model = {"hidden": (4,), "latent_dim": 2}
few = {"epochs": 1, "grace_period": 1, "trials": 2, "features": "pca", "model": model}
genpipe.search("autoencoder", data="digits", store=sys.argv[1], **few)
"""
SET_BY_LIBRARIES = {
    "PYTEST_CURRENT_TEST",
    *("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"),  # scikit-learn, when it is imported
    "TORCHINDUCTOR_CACHE_DIR",  # torch.export, when it is first used
}


def process_state() -> dict[str, Any]:
    """Return what a library must not change in the process of its user."""
    return {
        "environment": {k: v for k, v in os.environ.items() if k not in SET_BY_LIBRARIES},
        "warnings": [each for each in warnings.filters if not _is_of_a_library(each)],
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "denormals": cpu._flushes_denormals(),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "signals": {each: signal.getsignal(each) for each in signal.valid_signals()},
        "random numbers": torch.get_rng_state().tolist(),
        "root logger": (logging.getLogger().level, list(logging.getLogger().handlers)),
        "folder": os.getcwd(),
        "ray": ray.is_initialized(),
    }


def _is_of_a_library(warning_filter: Any) -> bool:
    """Return whether a filter is for a library's own warnings: it adds them when it is imported,
    as sympy does, which torch imports when it first exports a model."""
    return bool(warning_filter[2].__module__ != "builtins")


@contextmanager
def left_as_it_was() -> Iterator[None]:
    """Check that the block changes nothing in the process."""
    before = process_state()
    yield
    after = process_state()
    for name, value in before.items():
        if isinstance(value, dict):
            now = after[name]
            changed = {k for k in value.keys() | now.keys() if value.get(k) != now.get(k)}
            assert not changed, (name, {k: (value.get(k), now.get(k)) for k in changed})
        assert after[name] == value, name


@pytest.fixture(autouse=True)
def process_is_left_as_it_was() -> Iterator[None]:
    with left_as_it_was():
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("public")


@pytest.fixture(scope="module")
def searched(store: Path) -> SearchResult:
    settings = {**FAST, "precision": "auto", "grace_period": 1}
    with left_as_it_was():
        return genpipe.search("vae", data="digits", trials=3, store=store, **settings)


@pytest.fixture(scope="module")
def trained(store: Path) -> TrainResult:
    with left_as_it_was():
        return genpipe.train("vae", name="mine", store=store, **FAST)


def test_a_search_returns_its_ranking(searched: SearchResult, store: Path) -> None:
    assert searched.outcome == "completed" and searched.exit_code == 0
    assert len(searched.ranking) == 3 and searched.pareto == ()
    champion = searched.champion
    assert champion == searched.ranking[0]
    assert set(champion.config) == {"model.latent_dim", "model.kl_weight", "optim.lr"}
    assert champion.metrics[searched.metric] == champion.value
    check_recorded(store, asdict(searched))


def test_a_run_returns_its_best_epoch(trained: TrainResult, store: Path) -> None:
    assert trained.outcome == "completed" and trained.name == "mine"
    assert trained.value == trained.metrics[trained.metric]
    assert trained.model["hidden"] == (32,)
    assert Path(trained.checkpoint or "").is_relative_to(store)


def test_a_model_is_loaded_and_used(searched: SearchResult, store: Path) -> None:
    model = genpipe.load("vae-digits@champion", store=store)
    assert searched.champion
    latent_dim = searched.champion.config["model.latent_dim"]
    images = model.sample(5)
    assert images.shape == (5, 1, 8, 8) and 0.0 <= images.min() <= images.max() <= 1.0
    assert torch.equal(images, model.sample(5)) and not torch.equal(images, model.sample(5, 1))
    assert model.encode(images).shape == (5, latent_dim)
    assert model.reconstruct(images).shape == images.shape
    assert set(model.networks) == {"encoder", "decoder"}
    with pytest.raises(
        genpipe.InputError, match=r"images = \(5, 1, 4, 4\): expected \(N, 1, 8, 8"
    ):
        model.encode(images[:, :, :4, :4])


def test_samples_are_written(searched: SearchResult, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "samples.npz"
    result = genpipe.sample("vae-digits@champion", num=6, out=out, store=store)
    assert result.path == str(out) and np.load(out)["images"].shape == (6, 8, 8, 1)


def test_a_model_is_evaluated(trained: TrainResult, store: Path) -> None:
    result = genpipe.evaluate("mine", num=300, importance_samples=5, images=20, store=store)
    assert result.run_id == trained.run_id and result.exit_code == 0
    assert result.metrics["test/nll/iw5/20"] > 0
    assert result.metrics["test/fd/pca-digits/300"] > 0


def test_a_config_is_confirmed(trained: TrainResult, store: Path) -> None:
    study = genpipe.confirm("mine", seeds=3, store=store)
    assert study.outcome == "completed" and study.seed_statistics
    assert study.seed_statistics.seeds == 3 and study.seeds_beaten in range(4)
    assert sorted(row.config["seed"] for row in study.ranking) == [1, 2, 3]


def test_what_is_recorded_is_listed(
    searched: SearchResult, trained: TrainResult, store: Path
) -> None:
    rows = {row.run_id: row for row in genpipe.runs(store=store, num=100).runs}
    assert rows[searched.run_id or ""].kind == "search"
    assert rows[trained.run_id or ""].name == "mine"
    best = genpipe.best("vae", store=store, num=100)
    recorded = [*(row.run_id for row in searched.ranking), trained.run_id]
    assert sorted(map(str, recorded)) == sorted(row.run_id for row in best.ranking)
    values = [row.value for row in best.ranking]
    assert values == sorted(values, key=float) and best.rerun.startswith("genpipe train vae")


@pytest.mark.parametrize(
    ("function", "settings", "message"),
    [
        ("search", {"trails": 3}, "trails = 3: expected one of"),
        ("search", {"model": {"latent": 3}}, "model.latent = 3: expected one of"),
        ("search", {"trials": 0}, "trials = 0: expected an integer of at least 1"),
        ("search", {"metric": ["val/elbo", "val/elbo"]}, "expected each metric once"),
        ("search", {"resume": "none"}, "resume = 'none': expected a search of"),
        ("train", {"trials": 3}, "trials = 3: expected one of"),
        ("train", {"optim": {"lr": -1.0}}, "lr = -1.0: expected a number above 0"),
        ("train", {"data": "mnits"}, "mnits"),
    ],
)
def test_wrong_settings_are_refused_before_ray_starts(
    function: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(genpipe.InputError) as caught:
        getattr(genpipe, function)("vae", store=tmp_path / "new", **settings)
    assert message in str(caught.value)


def test_names_are_those_that_are_documented() -> None:
    names = {"train", "search", "confirm", "evaluate", "sample", "load", "runs", "best", "enqueue"}
    assert names <= set(genpipe.__all__)
    for name in names:
        assert ">>> import genpipe" in getattr(genpipe, name).__doc__ or name in ("runs", "best")
    with pytest.raises(AttributeError, match="has no attribute 'serch'"):
        genpipe.serch  # noqa: B018


def test_no_thread_beside_tune_imports_torchs_compiler(tmp_path: Path) -> None:
    """`_operator` is not in `sys.modules` for a moment of that import."""
    command = [sys.executable, "-c", WHERE_IMPORTED, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    lines = [line for line in ran.stdout.splitlines() if "polyfills" in line]
    assert lines == ["torch._dynamo.polyfills.operator True"]
