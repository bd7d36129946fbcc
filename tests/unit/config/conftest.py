"""Configs of every family that depart from its defaults in many settings."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.config.run import Train
from pipelines.config.search import Search
from pipelines.config.serialization import make_config

MODELS: dict[str, dict[str, Any]] = {
    "autoencoder": {"hidden": (9, 8), "density": "gaussian", "noise_std": 0.25},
    "vae": {"hidden": (7,), "arch": "conv", "conditional": True, "kl_warmup_epochs": 1e-5},
    "gan": {"hidden": (3, 4, 5), "spectral_norm": False, "pac": 2, "latent_dim": 3},
}
OPTIMS: dict[str, dict[str, Any]] = {
    "autoencoder": {"lr": 3e-5, "betas": (0.5, 0.75)},
    "vae": {"weight_decay": 0.125, "ema_decay": 0.5},
    "gan": {"generator": {"lr": 1e-5, "betas": (0.25, 0.5)}, "discriminator": {"eps": 1e-6}},
}
RUN: dict[str, Any] = {
    "data": "folder:my pictures",
    "data_root": Path("/data"),
    "image_size": 16,
    "channels": "grey",
    "binarise": True,
    "epochs": 7,
    "batch_size": 12,
    "drop_last": False,
    "seed": 3,
    "precision": "fp32",
    "compile": "off",
    "max_failures": 0,
    "features": "pca",
    "picture_every": 2,
    "keep_checkpoints": 4,
}


@pytest.fixture(params=sorted(MODELS))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def train(family: str) -> Train:
    """A run whose settings are all but the device's and the workers' unlike the defaults."""
    settings = {**RUN, "model": MODELS[family], "optim": OPTIMS[family]}
    return make_config(Train, family, settings)


@pytest.fixture
def search(family: str) -> Search:
    settings = {
        **RUN,
        "model": MODELS[family],
        "optim": OPTIMS[family],
        "trials": 5,
        "scheduler": "hyperband",
        "searcher": "random",
        "grid_points": 2,
        "grace_period": 2,
        "reduction_factor": 4,
        "fuse": 3,
        "max_concurrent": 6,
        "confirm": 2,
        "seeds": 9,
    }
    return make_config(Search, family, settings)
