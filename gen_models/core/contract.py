"""The family contract: what a file in `gen_models/` supplies, and nothing else about it is known.

A family is a module with three names:

- `Config`, a frozen dataclass: architecture and loss weights, a docstring under each field;
- `Optim`, its optimizers: `Adam` for a family of one objective, else a frozen dataclass with an
  `Adam` per objective, under the objective's name;
- `Model`, a `Model` as below: the algebra of the family. It holds no parameters. The networks
  are passed in, so the same algebra runs on plain modules, on modules wrapped for DDP, and on
  parameters stacked over many members.

Learners whose configs differ in numbers alone are trained as one, vectorised over them
(`gen_models.fused.trainer`). Then a float field of the config is a tensor () that stands for
each learner's own number, so losses compute with it by tensor operations and ask `on(field)`
whether it is other than 0, never `if field`. The fields that `Model.widths` names may differ too:
each tensor is zero-padded to the widest learner's shape, so a learner's part of it must be the
first entries along each dimension, and the zeros behind them must add nothing to a loss, a metric
or an image.

Data are float tensors (N, *shape) with values in [0, 1], everywhere outside a family: images
(N, C, H, W), points of the plane (N, 2). What is said of images here holds for any data. With
them come their classes; a family may look at them or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Generator, Tensor, nn

from gen_models.core.data import Batch, DataSpec
from gen_models.core.errors import require

Networks = Mapping[str, Callable[..., Any]]
"""Networks by name, callable; in training they may be wrapped (DDP, functional calls)."""

Draws = dict[str, Tensor]
"""The random numbers of one step, by name; the first dimension of each is the batch."""


Metrics = dict[str, Tensor]
"""Scalars by name, means over the batch; detached by whoever keeps them."""


@dataclass(frozen=True)
class Adam:
    """One optimizer: Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    lr: float = 1e-3
    """Learning rate."""
    decay_epochs: float = 0.0
    """Epochs over which the learning rate falls to 0 along half a cosine (Loshchilov & Hutter
    2017), after which nothing is learnt any more; 0 keeps it as it is."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the running means of the gradient and of its square."""
    eps: float = 1e-8
    """Added to the denominator."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    ema_decay: float = 0.0
    """Decay per step of an exponential moving average of the networks that this optimizer
    updates; 0 keeps none. Sampling and validation use the average."""

    def __post_init__(self) -> None:
        require(0 < self.lr < 10, "lr", self.lr, "a number above 0 and below 10")
        require(self.decay_epochs >= 0, "decay_epochs", self.decay_epochs, "at least 0")
        require(all(0 <= b < 1 for b in self.betas), "betas", self.betas, "two numbers in [0, 1)")
        require(self.eps > 0, "eps", self.eps, "a number above 0")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")
        require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "a number in [0, 1)")


@dataclass(frozen=True)
class Objective:
    """A loss and the networks that it updates."""

    name: str
    networks: tuple[str, ...]
    """The networks updated; every other network is frozen while the loss runs."""
    loss: Callable[[Networks, Batch, Draws, Tensor | float], tuple[Tensor, Metrics]]
    """`loss(networks, batch, draws, epoch) -> (loss, metrics)`: the mean over the batch.

    `epoch` is the position in training, in epochs, fractional; schedules are functions of it.
    No randomness but `draws`, no optimizer, device, `.item()` or control flow on data inside."""
    period: int = 1
    """Runs on every `period`-th step."""


class Model(Protocol):
    """The algebra of a family: `Model(config, spec)`."""

    config: Any
    spec: DataSpec
    noise_dim: int
    """A sample is a function of this many standard normal numbers."""
    widths: tuple[str, ...]
    """Integer fields of the config in which learners trained as one may differ."""

    def __init__(self, config: Any, spec: DataSpec) -> None: ...

    def networks(self) -> dict[str, nn.Module]:
        """Fresh networks, initialised from torch's global generator."""

    def objectives(self) -> tuple[Objective, ...]:
        """The objectives, in the order in which a step runs them."""

    def draws(self, num: int, generator: Generator) -> Draws:
        """All the randomness of one step over `num` images, on the generator's device."""

    def generate(self, networks: Networks, noise: Tensor, labels: Tensor) -> Tensor:
        """Data (N, *shape) in [0, 1] from standard normal `noise` (N, noise_dim), of the classes
        `labels` (N,) if the model is class-conditional."""

    def validate(self, networks: Networks, batch: Batch, draws: Draws) -> Metrics:
        """What a validation batch says of the model, at the weights of the yardstick and not
        those of the search; {} for a family that is judged by its samples alone."""


@runtime_checkable
class Reconstructs(Protocol):
    """Optional: the family can reconstruct images."""

    def reconstruct(self, networks: Networks, batch: Batch) -> Tensor:
        """The model's version of each image of `batch`, same shape, in [0, 1]."""


@runtime_checkable
class Encodes(Protocol):
    """Optional: the family maps an image to a point of its latent space."""

    def encode(self, networks: Networks, batch: Batch) -> Tensor:
        """The code of each image, or the mean of its posterior, (N, latent_dim)."""


@runtime_checkable
class BoundsLikelihood(Protocol):
    """Optional: the family has p(x|z), p(z) and an approximate posterior q(z|x), so that
    p(x, z) / q(z|x) for z drawn from q bounds log p(x) (Burda et al. 2016); of a class-conditional
    model, all of them given the class."""

    def log_terms(
        self, networks: Networks, batch: Batch
    ) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """A function of standard normal noise (S, N, noise_dim), from which z is made: log p(x|z)
        and log p(z) - log q(z|x) of each image, both (S, N), in nats. Their sum is the log of the
        importance weight. The images are encoded once, by this call; no gradients."""


@runtime_checkable
class TakesLabels(Protocol):
    """Optional: a config of the family may make it class-conditional."""

    conditional: bool
    """Whether this model's images are of a class that is asked for."""


@runtime_checkable
class FitsSampler(Protocol):
    """Optional: before sampling, something is fitted to the trained networks' codes."""

    def fit_sampler(self, networks: Networks, batches: Iterable[Batch], seed: int) -> None:
        """Fit on batches of training images; what is fitted is kept in the networks' buffers."""


@runtime_checkable
class TakesRowsTogether(Protocol):
    """Optional: a loss takes the rows of a batch together, in groups of neighbours."""

    rows_together: int
    """Rows in a group. What a worker has of a batch is a multiple of it, so that as many workers
    as there may be compute what one would."""


@runtime_checkable
class AfterUpdate(Protocol):
    """Optional, for a module within a network: work due after each update of its parameters,
    such as a power iteration, so that its forward pass need not change anything."""

    def after_update(self) -> None:
        """Runs without gradients."""


def is_conditional(model: Model) -> bool:
    """Whether the model is class-conditional."""
    return isinstance(model, TakesLabels) and model.conditional


def num_labels(conditional: bool, spec: DataSpec) -> int:
    """Classes that networks are told of: the data's, or none. Raises `InputError` where a model is
    to be class-conditional and the data have no labels."""
    expected = "False, for the data have no labels"
    require(not conditional or spec.num_classes > 0, "conditional", conditional, expected)
    return spec.num_classes if conditional else 0


def on(value: Tensor | float) -> bool:
    """Whether a float field of a config is other than 0. A tensor stands for such numbers."""
    return isinstance(value, Tensor) or value != 0


def adams(optim: Any, objectives: Iterable[Objective]) -> dict[str, Adam]:
    """The optimizer's settings of each objective, by its name, out of a family's `Optim`."""
    return {
        o.name: optim if isinstance(optim, Adam) else getattr(optim, o.name) for o in objectives
    }
