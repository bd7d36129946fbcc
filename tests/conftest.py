"""What tests share: the families, small data, MNIST where the machine has it."""

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

import gen_models
from gen_models.core import Batch, DataSpec, Learner

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


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make_model(variant: str, spec: DataSpec = SPEC, **changes: Any) -> Any:
    family, settings = VARIANTS[variant]
    module = gen_models.family(family)
    return module.Model(replace(module.Config(), **(settings | changes)), spec)


def make_learner(variant: str, seed: int = 0, spec: DataSpec = SPEC, **changes: Any) -> Learner:
    family, _ = VARIANTS[variant]
    optim = gen_models.family(family).Optim()
    return Learner(make_model(variant, spec, **changes), optim, seed=seed, steps_per_epoch=10)


def some_images(num: int, spec: DataSpec = SPEC, seed: int = 0) -> Tensor:
    """Blobs, so that there is something to learn: float (N, C, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    channels, height, width = spec.shape
    centres = torch.rand(num, 2, 1, 1, generator=generator)
    rows = torch.linspace(0, 1, height)[:, None] - centres[:, 0]
    columns = torch.linspace(0, 1, width)[None, :] - centres[:, 1]
    blobs = torch.exp(-20 * (rows.square() + columns.square()))
    return blobs[:, None].repeat(1, channels, 1, 1)


def some_batch(num: int, spec: DataSpec = SPEC, seed: int = 0) -> Batch:
    """Blobs, and their classes in turn."""
    labels = torch.arange(num) % max(spec.num_classes, 1)
    return Batch(some_images(num, spec, seed), labels)


def some_pixels(num: int) -> Batch:
    """Blobs as a data set in memory: uint8, with their classes."""
    images, labels = some_batch(num)
    return Batch((images * 255).round().to(torch.uint8), labels)


@pytest.fixture(autouse=True)
def own_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test records where it says, whatever the machine or the test before it has set."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    root = Path(os.environ.get("GENPIPE_DATA_ROOT", ""))
    if not (root / "MNIST" / "raw").is_dir():
        pytest.skip("wants MNIST: set GENPIPE_DATA_ROOT to a folder that holds MNIST/raw")
    return root


INCEPTION = "weights-inception-2015-12-05-6726825d.pth"


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch.hub looks, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch"


@pytest.fixture
def inception_file(torch_home: Path) -> Path:
    """Weights of Inception's shapes, drawn at random, where torch-fidelity would have put its
    own."""
    path = torch_home / "hub" / "checkpoints" / INCEPTION
    path.parent.mkdir(parents=True)
    torch.save(_random_inception(), path)
    return path


def _random_inception(seed: int = 0) -> dict[str, Tensor]:
    """Of a size that neither kills nor multiplies what passes through."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Unread(FeatureExtractorInceptionV3):  # type: ignore[misc]
        """The network as it is before weights are read."""

        def load_state_dict(self, *args: object, **kwargs: object) -> None:
            pass

    file = io.BytesIO()
    torch.save({}, file)
    file.seek(0)
    network, generator = Unread("x", ["2048"], file), Generator().manual_seed(seed)
    for parameter in network.parameters():
        if parameter.dim() == 4:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
    return dict(network.state_dict())
