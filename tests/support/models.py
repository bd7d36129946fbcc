"""Small models of the built-in families and small data, as tests of all packages use them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gen_models
from gen_models import Batch, DataSpec, Learner
from gen_models.core.contract import FitsSampler
from gen_models.core.networks import build_networks
from gen_models.testing.examples import example_batch, example_values
from gen_models.testing.states import assert_equal_states as assert_equal_states

Device = torch.device | str
SPEC = DataSpec((1, 8, 8), 10)
FAMILIES = gen_models.names()

# Every family in every architecture, small; a VAE with the importance-weighted bound; and those
# that can be class-conditional.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    f"{family}-{arch}": (family, {"arch": arch, "channels": 8, "hidden": (32,), "latent_dim": 4})
    for family in FAMILIES
    for arch in ("mlp", "conv")
}
VARIANTS["vae-iwae"] = (
    "vae",
    {**VARIANTS["vae-mlp"][1], "importance_samples": 3, "activation": "tanh", "free_bits": 0.0},
)
VARIANTS |= {
    f"{family}-conditional-{arch}": (
        family,
        {**VARIANTS[f"{family}-{arch}"][1], "conditional": True},
    )
    for family in FAMILIES
    for arch in ("mlp", "conv")
    if hasattr(gen_models.family(family).Config(), "conditional")
}

DEVICES = [
    "cpu",
    *([pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else []),
]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Set torch's default dtype within the context."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def needs(*packages: str) -> pytest.MarkDecorator:
    """Return the mark that skips a test where one of `packages` is not installed."""
    missing = [name for name in packages if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def skip_if_unfittable(model: Any) -> None:
    """Skip the test if the model fits its sampler and scikit-learn is not installed."""
    if isinstance(model, FitsSampler):
        pytest.importorskip("sklearn")


def make_model(variant: str, spec: DataSpec = SPEC, **changes: Any) -> Any:
    """Return the model of a variant; `changes` are fields of its config."""
    family, settings = VARIANTS[variant]
    module = gen_models.family(family)
    return module.Model(replace(module.Config(), **(settings | changes)), spec)


def make_networks(model: Any, device: Device = "cpu") -> dict[str, nn.Module]:
    """Return fresh networks of a model, in evaluation mode."""
    return {name: network.eval() for name, network in build_networks(model, device).items()}


def make_learner(
    variant: str, seed: int = 0, spec: DataSpec = SPEC, device: Device = "cpu", **changes: Any
) -> Learner:
    """Return a learner of a variant with the family's default optimizers, 10 steps an epoch."""
    family, _ = VARIANTS[variant]
    model, optim = make_model(variant, spec, **changes), gen_models.family(family).Optim()
    return Learner(model, optim, seed=seed, steps_per_epoch=10, device=device)


def some_images(num: int, spec: DataSpec = SPEC, seed: int = 0, device: Device = "cpu") -> Tensor:
    """Return images of a blob each, float (num, C, H, W) in [0, 1]."""
    return example_values(num, spec, seed, device)


def some_batch(num: int, spec: DataSpec = SPEC, seed: int = 0, device: Device = "cpu") -> Batch:
    """Return images of a blob each with labels, each class in turn."""
    return example_batch(num, spec, seed, device)


def some_pixels(num: int, device: Device = "cpu") -> Batch:
    """Return `some_batch` as a data set in memory: images as uint8."""
    images, labels = some_batch(num, device=device)
    return Batch((images * 255).round().to(torch.uint8), labels)
