"""Fixtures of all tests, and the settings under which they run."""

import os

# Before torch is imported: on a busy machine the threads of small operations wait for each other.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = "1"
# Read when CUDA begins; without it, no algorithm of cuBLAS counts as deterministic.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import io  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from importlib.util import find_spec  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from support.models import DEVICES, VARIANTS, default_dtype  # noqa: E402
from torch import Generator, Tensor, nn  # noqa: E402

from gen_models.metrics import likelihood  # noqa: E402

torch.set_num_threads(1)
# A shell starts its background jobs with SIGINT ignored, which their children inherit: tests of
# Ctrl-C would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

PACKAGES_OF_PIPELINES = ("ray", "mlflow", "tyro")
MISSING = [name for name in PACKAGES_OF_PIPELINES if find_spec(name) is None]
_TESTS = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Collect the tests of `gen_models` alone where the packages of `pipelines` are missing."""
    if not MISSING or not collection_path.name.startswith("test_"):
        return None
    return True if _TESTS / "unit" / "gen_models" not in collection_path.parents else None


def pytest_report_header() -> str | None:
    """Say what is not collected, and why."""
    if not MISSING:
        return None
    return f"tests of gen_models only: {', '.join(MISSING)} not installed"


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    """Each small variant of the built-in families (`support.models.VARIANTS`)."""
    return str(request.param)


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


@pytest.fixture(autouse=True)
def own_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test records where it says, whatever the machine or the test before it has set."""
    for name in ("MLFLOW_TRACKING_URI", "GENPIPE_TRACKING_URI", "GENPIPE_STORE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    root = Path(os.environ.get("GENPIPE_DATA_ROOT", ""))
    if not (root / "MNIST" / "raw").is_dir():
        pytest.skip("wants MNIST: set GENPIPE_DATA_ROOT to a folder that holds MNIST/raw")
    return root


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of MLflow: making one takes seconds, copying it no time."""
    from pipelines.store.layout import Store
    from pipelines.tracking.base import tracking_uri
    from pipelines.tracking.mlflow.connection import make_tables

    store = Store.at(tmp_path_factory.mktemp("mlflow"))
    make_tables(tracking_uri(store))
    return store.database


@pytest.fixture(scope="session")
def digits_features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `features` of a store in which the digits' classifier was trained: seconds."""
    from pipelines.data import load
    from pipelines.evaluation.feature_spaces import make_extractor, with_moments
    from pipelines.store.layout import Store

    store, dataset = Store.at(tmp_path_factory.mktemp("features")), load("digits", Path())
    with_moments(make_extractor(dataset, store), dataset, store)
    return store.features


@pytest.fixture
def prepared_store(tmp_path: Path, mlflow_database: Path, digits_features: Path) -> None:
    """Put what the first command in a store makes into `tmp_path` and `tmp_path / "runs"`, which
    tests take as stores: MLflow's tables, and the digits' feature space."""
    for store in (tmp_path, tmp_path / "runs"):
        shutil.copytree(digits_features, store / "features")
        shutil.copy(mlflow_database, store / "mlflow.db")


@pytest.fixture
def memory_server(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A `support.tracking.MemoryServer` at memory://test, of a tracking system that a package
    registers."""
    from support.tracking import BACKEND, MemoryServer, write_tracker_package

    package = tmp_path_factory.mktemp("package")
    write_tracker_package(package)
    monkeypatch.syspath_prepend(str(package))
    server = MemoryServer()
    monkeypatch.setitem(BACKEND.servers, "memory://test", server)
    yield server
    server.gate.set()


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
