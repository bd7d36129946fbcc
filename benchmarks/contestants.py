"""The models that the GPU's benchmarks train, and the ways in which they are trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import gen_models
from benchmarks.device import Work, count, seconds_a_step, synchronize
from benchmarks.figures import say
from gen_models import Adam, Batch, DataSpec, Learner, gan, vae
from gen_models.core.contract import Draws
from gen_models.fused.learners import VectorisedLearners
from gen_models.fused.stacking import stack_draws
from gen_models.training.batches import Epochs, TrainingImages
from gen_models.training.cuda_graphs import Due, StepGraphs
from gen_models.training.precision import Precision

Way = Literal["vectorised", "recorded", "compiled", "branches"]
"""How members are trained together: their steps as one; that recorded as a CUDA graph; compiled
and recorded; or in turn, each on a stream of its own, recorded as branches of one graph."""
Step = Callable[[], None]

_IMAGES = 16_384


@dataclass(frozen=True)
class Measuring:
    """How ways of training are timed: what their benchmarks' options share."""

    steps: int = 20
    """Steps of a measurement."""
    repeats: int = 5
    """Measurements; figures are of their medians."""
    device: str = "cuda"
    """Where. On a CPU nothing is recorded: a test of the script."""
    data_root: Path | None = None
    """Where torchvision's MNIST lies; without it images are noise, which takes as long."""
    profile: bool = False
    """Also say, for each of the ways, which kernels took the time of a few steps."""

    def seconds(self, step: Step) -> float:
        """Of a step, after a warm-up."""
        device = torch.device(self.device)
        seconds = seconds_a_step(step, device, self.steps, self.repeats)
        if self.profile:
            say(profile(step, device))
        return seconds


@dataclass(frozen=True)
class Contestant:
    """A model, its optimizer, and the images that it is trained on."""

    family: str
    config: Any
    optim: Any
    shape: tuple[int, int, int]
    batch_size: int

    def images(self, device: torch.device, data_root: Path | None = None) -> TrainingImages:
        """uint8 images on the device: MNIST, scaled and with its channel repeated, where there is
        a folder that holds it, else noise, which takes as long."""
        if data_root is None:
            generator = torch.Generator(device).manual_seed(0)
            size = (_IMAGES, *self.shape)
            images = torch.randint(
                256, size, generator=generator, device=device, dtype=torch.uint8
            )
        else:
            images = self._mnist(data_root).to(device)
        return TrainingImages(Batch.of(images), self.batch_size, drop_last=True)

    def _mnist(self, data_root: Path) -> Tensor:
        from torchvision.datasets import MNIST
        from torchvision.transforms.functional import resize

        images = MNIST(str(data_root)).data[:_IMAGES, None]
        channels, *size = self.shape
        scaled: Tensor = resize(images, size, antialias=True)
        return scaled.repeat(1, channels, 1, 1)

    def learner(
        self,
        data: TrainingImages,
        index: int = 0,
        precision: Precision = "fp32",
        *,
        compiled: bool = False,
        graphs: bool = False,
    ) -> Learner:
        """One of a search: members differ in their seeds and learning rates."""
        model = gen_models.family(self.family).Model(self.config, DataSpec(self.shape))
        return Learner(
            model,
            _slower(self.optim, 1 / (1 + index)),
            seed=index,
            steps_per_epoch=data.steps_per_epoch,
            device=data.device,
            precision=precision,
            compiled=compiled,
            graphs=graphs,
        )

    def work(self, data: TrainingImages) -> Work:
        """What a step of one learner needs."""
        return count(self.learner(data), next(data.batches(0, 1))[0])


def _slower(optim: Any, factor: float) -> Any:
    if isinstance(optim, Adam):
        return replace(optim, lr=factor * optim.lr)
    return replace(optim, **{n: _slower(getattr(optim, n), factor) for n in optim.__annotations__})


def _dcgan(size: int, num_channels: int, batch_size: int, width: int) -> Contestant:
    """Radford et al. 2016: without spectral normalisation, the non-saturating loss."""
    adam = Adam(lr=2e-4, betas=(0.5, 0.999))
    config = gan.Config(latent_dim=100, channels=width, loss="non_saturating", spectral_norm=False)
    shape = (num_channels, size, size)
    return Contestant("gan", config, gan.Optim(adam, adam), shape, batch_size)


def contestants(width: int) -> dict[str, Contestant]:
    """By name; `width`: channels of the DCGANs' largest feature map."""
    return {
        "mlp_vae": Contestant("vae", vae.Config(), vae.Optim(), (1, 28, 28), 128),
        "dcgan32": _dcgan(32, 1, 128, width),
        "dcgan64": _dcgan(64, 3, 64, width),
    }


def alone(learner: Learner, data: TrainingImages) -> Step:
    """Steps of one learner, its batches and random numbers included."""
    epochs, position = Epochs(data, [(learner.seed, 1)]), _Position(data)

    def step() -> None:
        batch, _ = epochs.batch(position.next())
        learner.step(Batch(batch.images[0], batch.labels[0]))

    return step


def together(
    contestant: Contestant, data: TrainingImages, num: int, way: Way, precision: Precision
) -> Step:
    """The same of `num` members."""
    plain = way in ("vectorised", "branches")
    members = [
        contestant.learner(data, index, precision, compiled=way == "compiled", graphs=not plain)
        for index in range(num)
    ]
    take = Branches(members).step if way == "branches" else VectorisedLearners(members).step
    epochs, position = Epochs(data, [(one.seed, 1) for one in members]), _Position(data)

    def step() -> None:
        batch, _ = epochs.batch(position.next())
        take(batch)

    return step


class _Position:
    """Steps of an epoch, over and over."""

    def __init__(self, data: TrainingImages) -> None:
        self._steps, self._now = data.steps_per_epoch, -1

    def next(self) -> int:
        self._now = (self._now + 1) % self._steps
        return self._now


class Branches:
    """Learners that take their steps in turn, recorded as branches of one CUDA graph, which the
    device may run side by side: each has the kernels that it has alone."""

    def __init__(self, learners: Sequence[Learner]) -> None:
        self.learners = list(learners)
        self._streams = [torch.cuda.Stream() for _ in self.learners]  # type: ignore[no-untyped-call]
        self._recorded = StepGraphs(self._run, self._tensors)

    def step(self, batch: Batch) -> None:
        """One step of each, on images (K, N, *shape) and labels (K, N)."""
        num, count = batch.labels.shape[1], self.learners[0].step_count
        draws = stack_draws([one.draws(num, one.step_count) for one in self.learners])
        due = tuple(update.is_due(count) for update in self.learners[0].updates)
        self._recorded(batch, draws, due)
        for one in self.learners:
            one.step_count += 1

    def _run(self, batch: Batch, draws: Draws, due: Due) -> None:
        now = torch.cuda.current_stream()
        for index, (learner, stream) in enumerate(zip(self.learners, self._streams, strict=True)):
            stream.wait_stream(now)
            with torch.cuda.stream(stream):
                own = Batch(batch.images[index], batch.labels[index])
                learner._run(own, {name: d[index] for name, d in draws.items()}, due)
        for stream in self._streams:
            now.wait_stream(stream)

    def _tensors(self) -> list[Tensor]:
        return [tensor for one in self.learners for tensor in one._tensors()]


def profile(step: Step, device: torch.device) -> str:
    """Which kernels took the time of a few steps."""
    with torch.profiler.profile() as profiler:
        for _ in range(5):
            step()
        synchronize(device)
    by = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    averages = profiler.key_averages()
    return str(averages.table(sort_by=by, row_limit=15, max_name_column_width=70))
