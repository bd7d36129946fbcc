"""What tests share: the families, small data, MNIST where the machine has it."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

import gen_models
from gen_models.core import Batch, DataSpec, Learner
from gen_models.core.contract import FitsSampler
from gen_models.core.data import unit
from gen_models.metrics import PCAFeatures, likelihood

# Read when CUDA begins; without it, no algorithm of cuBLAS counts as deterministic.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

# What imports the pipelines' packages as it is collected. The other files are about `gen_models`,
# and are collected where torch is installed without them.
PACKAGES = ("ray", "mlflow", "tyro")
OF_PIPELINES = (
    *("cli", "cluster", "confirm", "data", "evaluate", "features", "front", "fused", "inception"),
    *("pipeline", "ranking", "report", "spaces", "tracking"),
)
MISSING = [name for name in PACKAGES if find_spec(name) is None]
collect_ignore = [f"test_{name}.py" for name in OF_PIPELINES if MISSING]


def pytest_report_header() -> str | None:
    """What is not collected, and why."""
    files = ", ".join(collect_ignore)
    return f"not collected without {', '.join(MISSING)}: {files}" if MISSING else None


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


Device = torch.device | str
DEVICES = [
    "cpu",
    *([pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else []),
]


@pytest.fixture
def full_precision() -> Iterator[None]:
    """No float32 product on a GPU is computed in TF32."""
    libraries = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [library.allow_tf32 for library in libraries]
    for library in libraries:
        library.allow_tf32 = False
    yield
    for library, allowed in zip(libraries, before, strict=True):
        library.allow_tf32 = allowed


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest, full_precision: None) -> torch.device:
    """The CPU, and a GPU where there is one."""
    return torch.device(request.param)


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Algorithms that give the same bits each time, of which a GPU does not choose by itself."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.fixture
def float64() -> Iterator[None]:
    with default_dtype(torch.float64):
        yield


@pytest.fixture
def cpu_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Likelihoods are estimated with the CPU's noise on every device."""
    drawn = likelihood._tiles

    def tiles(*args: Any) -> Iterator[Tensor]:
        *shape, like = args
        return (noise.to(like.device) for noise in drawn(*shape, like.cpu()))

    monkeypatch.setattr(likelihood, "_tiles", tiles)


def needs(*packages: str) -> pytest.MarkDecorator:
    """The mark of a test that wants packages beside torch."""
    missing = [name for name in packages if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"wants {', '.join(missing)}")


def skip_if_unfittable(model: Any) -> None:
    """Skip a test that fits what is sampled from, where there is nothing to fit it with."""
    if isinstance(model, FitsSampler):
        pytest.importorskip("sklearn")


def make_model(variant: str, spec: DataSpec = SPEC, **changes: Any) -> Any:
    family, settings = VARIANTS[variant]
    module = gen_models.family(family)
    return module.Model(replace(module.Config(), **(settings | changes)), spec)


def on_device(networks: dict[str, nn.Module], device: Device) -> dict[str, nn.Module]:
    """Networks that are on the CPU, on the device. On a GPU a learner's memory format is theirs
    too, for it decides which kernels run and so how they round."""
    if torch.device(device).type == "cpu":
        return networks
    layout = torch.channels_last
    return {name: network.to(device, memory_format=layout) for name, network in networks.items()}


def make_networks(model: Any, device: Device = "cpu") -> dict[str, nn.Module]:
    """Fresh networks of a model, in evaluation mode."""
    return {n: network.eval() for n, network in on_device(model.networks(), device).items()}


def make_learner(
    variant: str, seed: int = 0, spec: DataSpec = SPEC, device: Device = "cpu", **changes: Any
) -> Learner:
    family, _ = VARIANTS[variant]
    model, optim = make_model(variant, spec, **changes), gen_models.family(family).Optim()
    return Learner(model, optim, seed=seed, steps_per_epoch=10, device=device)


def some_images(num: int, spec: DataSpec = SPEC, seed: int = 0, device: Device = "cpu") -> Tensor:
    """Blobs, so that there is something to learn: float (N, C, H, W) in [0, 1], the same on every
    device."""
    generator = torch.Generator().manual_seed(seed)
    channels, height, width = spec.shape
    centres = torch.rand(num, 2, 1, 1, generator=generator)
    rows = torch.linspace(0, 1, height)[:, None] - centres[:, 0]
    columns = torch.linspace(0, 1, width)[None, :] - centres[:, 1]
    blobs = torch.exp(-20 * (rows.square() + columns.square()))
    return blobs[:, None].repeat(1, channels, 1, 1).to(device)


def some_batch(num: int, spec: DataSpec = SPEC, seed: int = 0, device: Device = "cpu") -> Batch:
    """Blobs, and their classes in turn."""
    labels = torch.arange(num, device=device) % max(spec.num_classes, 1)
    return Batch(some_images(num, spec, seed, device), labels)


def some_pixels(num: int, device: Device = "cpu") -> Batch:
    """Blobs as a data set in memory: uint8, with their classes."""
    images, labels = some_batch(num, device=device)
    return Batch((images * 255).round().to(torch.uint8), labels)


def assert_equal_states(a: object, b: object) -> None:
    """The same bits, in whatever holds them."""
    if isinstance(a, Tensor):
        assert isinstance(b, Tensor) and torch.equal(a, b)
    elif isinstance(a, dict):
        assert isinstance(b, dict) and a.keys() == b.keys()
        for key in a:
            assert_equal_states(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert isinstance(b, (list, tuple)) and len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal_states(x, y)
    else:
        assert a == b


def make_evaluator(train: Batch, validation: Batch) -> Any:
    """By the principal components of the validation images."""
    from pipelines.evaluation.validation import Evaluator

    space = PCAFeatures.of("pca", unit(validation.images))
    return Evaluator(train, validation, space)


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
