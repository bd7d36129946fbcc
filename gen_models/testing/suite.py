"""Base of the conformance suite: parametrisation by variant, shape and device, and fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar, get_type_hints

import pytest
import torch
from torch import nn

from gen_models.core.checkpoint import save_checkpoint
from gen_models.core.contract import Model, TakesRowsTogether
from gen_models.core.data import Batch, DataSpec
from gen_models.core.families import family
from gen_models.core.networks import build_networks
from gen_models.testing.examples import example_values
from gen_models.testing.workers import run_workers
from gen_models.training.batches import TrainingImages
from gen_models.training.distributed import check_replicas
from gen_models.training.learner import Learner

Test = TypeVar("Test", bound=Callable[..., None])
_STEPS_PER_EPOCH = 10
WORLDS = (2, 4)
"""Numbers of workers whose results are compared with those of one."""
_WORKERS = pytest.StashKey[Path]()


class Case(NamedTuple):
    """A model that several workers train."""

    name: str
    family: str
    config: Any
    spec: DataSpec


def for_models(condition: Callable[[Model], bool]) -> Callable[[Test], Test]:
    """Run a test for the variants whose model meets `condition` only."""

    def mark(test: Test) -> Test:
        test.condition = condition  # type: ignore[attr-defined]
        return test

    return mark


class FamilySuite:
    """Variants of a family as parameters of tests, fixtures, and models and learners to test."""

    family: ClassVar[str]
    """Name of the family."""
    variants: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Fields of the family's `Config` that differ from the defaults, by label."""
    spec: ClassVar[DataSpec] = DataSpec((1, 8, 8), 10)
    """The data that every variant can learn from."""
    shapes: ClassVar[Sequence[tuple[int, ...]]] = (
        *((1, 8, 8), (3, 16, 16), (1, 28, 28), (3, 32, 32), (1, 12, 20)),
        (2,),
    )
    """Shapes of data; a model is built for each, or refuses it with an `InputError`."""
    devices: ClassVar[Sequence[Any]] = ("cpu", *(["cuda"] if torch.cuda.is_available() else []))
    """Devices, or `pytest.param`s of devices."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parametrise the tests by variant, shape and device."""
        condition = getattr(metafunc.function, "condition", None)
        if "variant" in metafunc.fixturenames:
            chosen = [v for v in self.variants if not condition or condition(self.model(v))]
            metafunc.parametrize("variant", chosen)
        if "shape" in metafunc.fixturenames:
            metafunc.parametrize("shape", self.shapes, ids=str)
        if "device" in metafunc.fixturenames:
            metafunc.parametrize("device", self.devices)

    @pytest.fixture(autouse=True)
    def full_precision(self) -> Iterator[None]:
        """Compute float32 products on a GPU in float32, and not in TF32."""
        products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
        before = products.allow_tf32, convolutions.allow_tf32
        products.allow_tf32 = convolutions.allow_tf32 = False
        yield
        products.allow_tf32, convolutions.allow_tf32 = before

    @pytest.fixture
    def deterministic(self) -> Iterator[None]:
        """Use algorithms that return the same bits at every call."""
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True)
        yield
        torch.use_deterministic_algorithms(before)

    @pytest.fixture
    def float64(self) -> Iterator[None]:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(before)

    @pytest.fixture(scope="class")
    @classmethod
    def workers(
        cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Path:
        """A folder with what the workers of each of `WORLDS` computed for every variant. As
        processes take seconds to start, they train the variants of all suites of a session."""
        stash = request.config.stash
        if _WORKERS not in stash:
            owners = {item.getparent(pytest.Class) for item in request.session.items}
            classes = [owner.obj for owner in owners if owner is not None]
            suites = [each for each in classes if issubclass(each, FamilySuite)]
            cases = [
                Case(f"{suite.family}-{label}", suite.family, suite().config(label), suite.spec)
                for suite in suites
                for label in suite.variants
            ]
            folder = tmp_path_factory.mktemp("workers")
            for world in WORLDS:
                run_workers(world, _train_as_worker, world, cases, folder)
            stash[_WORKERS] = folder
        return stash[_WORKERS]

    # Models and learners of a variant

    def config(self, variant: str) -> Any:
        """Return the config of a variant."""
        return replace(family(self.family).Config(), **self.variants[variant])

    def member_config(self, variant: str, index: int) -> Any:
        """Return the config of one of several learners that are trained as one: numbers and
        widths differ. Override it where a number may not be 10 % larger."""
        config = self.config(variant)
        model = family(self.family).Model(config, self.spec)
        hints = get_type_hints(type(config))
        values = {field.name: getattr(config, field.name) for field in fields(config)}
        numbers = {n: v * (1 + 0.1 * index) for n, v in values.items() if hints[n] is float}
        widths = {name: values[name] + 2 * index for name in model.widths}
        return replace(config, **numbers, **widths)

    def model(self, variant: str, spec: DataSpec | None = None) -> Any:
        return family(self.family).Model(self.config(variant), spec or self.spec)

    def networks(self, model: Model, device: torch.device | str) -> dict[str, nn.Module]:
        """Return fresh networks in evaluation mode."""
        return {name: network.eval() for name, network in build_networks(model, device).items()}

    def learner(
        self, variant: str, device: torch.device | str, seed: int = 0, spec: DataSpec | None = None
    ) -> Learner:
        optim = family(self.family).Optim()
        return Learner(
            self.model(variant, spec),
            optim,
            seed=seed,
            steps_per_epoch=_STEPS_PER_EPOCH,
            device=device,
        )

    def save(self, folder: Path, learner: Learner) -> None:
        save_checkpoint(folder, self.family, learner.optim, learner)


def rows_of(model: Model, num: int) -> int:
    """Return `num` rounded up to a number of rows that the losses take."""
    together = model.rows_together if isinstance(model, TakesRowsTogether) else 1
    return -(-num // together) * together


def train_case(case: Case, rank: int, world: int) -> dict[str, Any]:
    """Train two epochs in the default dtype and return metrics and weights.

    The last batch of each is smaller than the others; unless rows belong together, four workers
    have unequal shares of it."""
    module, spec = family(case.family), case.spec
    model = module.Model(case.config, spec)
    together = rows_of(model, 1)
    rows, last = 8 * rows_of(model, 4), 10 if together == 1 else 4 * together
    images = example_values(4 * rows + last, spec).to(torch.get_default_dtype())
    examples = Batch(images, torch.arange(len(images)) % max(spec.num_classes, 1))
    data = TrainingImages(examples, rows, drop_last=False)
    learner = Learner(model, module.Optim(), seed=0, steps_per_epoch=data.steps_per_epoch)
    for epoch in (1, 2):
        for batch, share in data.batches(0, epoch, rank, world):
            learner.step(batch, share)
    check_replicas(learner.networks)
    weights = {name: dict(network.state_dict()) for name, network in learner.networks.items()}
    return {"metrics": learner.pop_metrics(), "weights": weights}


def worker_file(folder: Path, case: str, world: int, rank: int) -> Path:
    """Return the file of what a worker computed for a case."""
    return folder / f"{case}.{rank}-of-{world}.pt"


def _train_as_worker(rank: int, world: int, cases: Sequence[Case], folder: Path) -> None:
    torch.set_default_dtype(torch.float64)
    for case in cases:
        torch.save(train_case(case, rank, world), worker_file(folder, case.name, world, rank))
