"""The contract of families: the names that a family's module supplies. All other code knows a
family by these alone.

A family is a module with three names:

- `Config`, a frozen dataclass: architecture and loss weights, a docstring under each field;
- `Optim`, its optimizers: `Adam` for a family of one objective, else a frozen dataclass with an
  `Adam` per objective, under the objective's name;
- `Model`, a `Model` as below: the algebra of the family. It holds no parameters. The networks
  are passed in, so the same algebra runs on plain modules, on modules wrapped for DDP, and on
  parameters stacked over many learners.

Learners whose configs differ in numbers only can be trained together, vectorised with
`torch.func` (`gen_models.fused.trainer`). Then a float field of the config is a tensor () that
holds each learner's own number, so a loss uses it in tensor operations only, and tests
`on(field)` for whether it is not 0, never `if field`. The fields named by `Model.widths` may
differ too: each tensor is zero-padded to the widest learner's shape, so a learner's part of it
must be the first entries along each dimension, and the zeros after them must not change a loss, a
metric or an image.

Outside a family, data are float tensors (N, *shape) with values in [0, 1]: images (N, C, H, W),
points of the plane (N, 2). Where this page says images, it means any data. Batches have class
labels too, which a family may use or ignore.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from gen_models.core.errors import require

if TYPE_CHECKING:  # the settings of families are read without torch (gen_models.core.settings)
    from torch import Generator, Tensor, nn

    from gen_models.core.data import Batch, DataSpec

Networks = Mapping[str, Callable[..., Any]]
"""Networks by name, callable; in training they may be wrapped (DDP, functional calls)."""

Draws = dict[str, "Tensor"]
"""The random numbers of one step, by name, each (N, …)."""


Metrics = dict[str, "Tensor"]
"""Scalars by name, means over the batch. Not detached."""


@dataclass(frozen=True)
class Adam:
    """One optimizer: Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    lr: float = 1e-3
    """Learning rate."""
    decay_epochs: float = 0.0
    """Epochs over which the learning rate falls to 0 along half a cosine (Loshchilov & Hutter
    2017), where it stays; 0 keeps the rate constant."""
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
    """A loss and the networks whose parameters it updates."""

    name: str
    networks: tuple[str, ...]
    """Names of the networks updated; all others are frozen while the loss runs."""
    loss: Callable[[Networks, Batch, Draws, Tensor | float], tuple[Tensor, Metrics]]
    """`loss(networks, batch, draws, epoch) -> (loss, metrics)`: the mean over the batch.

    `epoch` is the position in training in epochs, fractional, on which schedules depend. A loss
    uses no random numbers but `draws`, no optimizer, device or `.item()`, and has no control flow
    on data: it is compiled, recorded as a CUDA graph, and vectorised."""
    period: int = 1
    """The objective runs on every `period`-th step."""


class Model(Protocol):
    """The computations of a family, without parameters: `Model(config, spec)`."""

    config: Any
    spec: DataSpec
    noise_dim: int
    """Number of standard normal values that `generate` takes for one sample."""
    widths: tuple[str, ...]
    """Integer fields of the config that may differ between learners that are trained together."""

    def __init__(self, config: Any, spec: DataSpec) -> None: ...

    def networks(self) -> dict[str, nn.Module]:
        """Build networks by name, initialised from torch's global generator."""

    def objectives(self) -> tuple[Objective, ...]:
        """Return the objectives, in the order in which a step runs them."""

    def draws(self, num: int, generator: Generator) -> Draws:
        """Draw all random numbers of one step over `num` images, on the generator's device."""

    def generate(self, networks: Networks, noise: Tensor, labels: Tensor) -> Tensor:
        """Map standard normal `noise` (N, noise_dim) to data (N, *shape) in [0, 1], of the classes
        `labels` (N,) if the model is class-conditional."""

    def validate(self, networks: Networks, batch: Batch, draws: Draws) -> Metrics:
        """Compute the metrics of a validation batch, independent of every loss weight that a
        search varies; {} for a family that is measured by its samples only."""


@runtime_checkable
class Reconstructs(Protocol):
    """Optional capability: reconstruction of images."""

    def reconstruct(self, networks: Networks, batch: Batch) -> Tensor:
        """Reconstruct the images of `batch`: same shape, values in [0, 1]."""


@runtime_checkable
class Encodes(Protocol):
    """Optional capability: codes of images."""

    def encode(self, networks: Networks, batch: Batch) -> Tensor:
        """Map images to their codes, or to the means of their posteriors: (N, latent_dim)."""


@runtime_checkable
class BoundsLikelihood(Protocol):
    """Optional capability: p(x|z), p(z) and an approximate posterior q(z|x), so that
    p(x, z) / q(z|x) for z drawn from q gives a lower bound on log p(x) (Burda et al. 2016). In a
    class-conditional model all of them are conditional on the class."""

    def log_terms(
        self, networks: Networks, batch: Batch
    ) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Encode the images and return a function of standard normal noise (S, N, noise_dim).

        It returns log p(x|z) and log p(z) - log q(z|x), both (S, N), in nats, for z computed from
        the noise. Their sum is the log of the importance weight. Called without gradients."""


@runtime_checkable
class TakesLabels(Protocol):
    """Optional capability: the family has class-conditional models."""

    conditional: bool
    """Whether this model is class-conditional."""


@runtime_checkable
class FitsSampler(Protocol):
    """Optional capability: a density is fitted to the codes of a trained model to sample from."""

    def fit_sampler(self, networks: Networks, batches: Iterable[Batch], seed: int) -> None:
        """Fit on batches of training images, and keep the result in the networks' buffers."""


@runtime_checkable
class TakesRowsTogether(Protocol):
    """Optional: a loss computes with groups of consecutive rows of a batch."""

    rows_together: int
    """Rows in a group. Each worker's number of rows must be a multiple of it, so that the groups
    do not depend on the number of workers."""


@runtime_checkable
class AfterUpdate(Protocol):
    """Optional, for a module within a network: work after each update of its parameters, such as a
    power iteration, so that its forward pass changes no buffer."""

    def after_update(self) -> None:
        """Update buffers in place. Called without gradients."""


def is_conditional(model: Model) -> bool:
    """Return whether the model is class-conditional."""
    return isinstance(model, TakesLabels) and model.conditional


def num_labels(conditional: bool, spec: DataSpec) -> int:
    """Return the number of classes that networks take as input: 0 unless `conditional`.

    Raises `InputError` if a class-conditional model is asked for and the data have no labels.
    """
    expected = "False, because the data have no labels"
    require(not conditional or spec.num_classes > 0, "conditional", conditional, expected)
    return spec.num_classes if conditional else 0


def on(value: Tensor | float) -> bool:
    """Return whether a float field of a config is not 0. Tensors stand for numbers other than
    0."""
    return not isinstance(value, (int, float)) or value != 0


def adams(optim: Any, objectives: Iterable[Objective]) -> dict[str, Adam]:
    """Return each objective's optimizer settings by its name, from a family's `Optim`."""
    return {
        o.name: optim if isinstance(optim, Adam) else getattr(optim, o.name) for o in objectives
    }
