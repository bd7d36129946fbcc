"""Checkpoints: folders with the state of a learner, from which training goes on and models sample.

    model.json             family, config, optimizers, data spec, seed, position; the package that
                           supplies the family, if it is not a built-in one
    weights.safetensors    `networks.<network>.<tensor>`, and `averages.<network>.<tensor>`
    optimizers.pt          the optimizers' state; read with `weights_only=True`
    SHA256SUMS             their checksums (`gen_models.core.checksums`), checked on every load

Somebody else may have made one. So reading one runs no code from it, and the networks that its
config describes are built only when its files are known to hold just their tensors.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save as as_safetensors
from torch import Tensor, nn

from gen_models.core.checksums import SUMS_FILE, check_checksums, write_checksums
from gen_models.core.config import from_dict, read_object
from gen_models.core.contract import Model, adams, is_conditional
from gen_models.core.data import DataSpec
from gen_models.core.errors import DamagedError, InputError, require, shown, shown_name
from gen_models.core.families import GROUP, distribution, family, names
from gen_models.core.networks import build_networks
from gen_models.core.tensor_files import read_nested, read_tensors

WEIGHTS_FILE, OPTIMIZERS_FILE = "weights.safetensors", "optimizers.pt"
_KINDS = ("networks", "averages")
_MAX_STEPS = 2**53
"""Up to which a float64 counts steps exactly."""


class Trainable(Protocol):
    """What is saved and restored: a `gen_models.training.learner.Learner`."""

    @property
    def model(self) -> Model: ...
    @property
    def networks(self) -> Mapping[str, nn.Module]: ...
    @property
    def device(self) -> torch.device: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class Checkpoint:
    """A model that was loaded from a checkpoint folder."""

    family: str
    model: Model
    networks: dict[str, nn.Module]
    """The networks to sample from, in evaluation mode on the CPU: averages where they are kept."""
    optim: Any
    seed: int
    step_count: int


@dataclass(frozen=True)
class _Description:
    """The content of `model.json`."""

    family: str
    config: Any
    optim: Any
    spec: DataSpec
    seed: int
    step_count: int
    package: str | None = None

    def __post_init__(self) -> None:
        is_count = 0 <= self.step_count <= _MAX_STEPS
        require(is_count, "step_count", self.step_count, f"0 to {_MAX_STEPS}")


def save_checkpoint(folder: Path, family_name: str, optim: Any, learner: Trainable) -> None:
    """Write a learner's state into `folder`, an existing empty folder. Raises `OSError` where it
    cannot be written; whoever made the folder makes it durable."""
    state = learner.state_dict()
    tensors = {k: v.detach().cpu().contiguous() for k, v in _flat(state).items()}
    # Written to memory first: their own writers hide an OSError, as of a full disk.
    (folder / WEIGHTS_FILE).write_bytes(as_safetensors(tensors))
    optimizers = io.BytesIO()
    torch.save(state["optimizers"], optimizers)
    (folder / OPTIMIZERS_FILE).write_bytes(optimizers.getbuffer())
    content = {
        "family": family_name,
        "config": asdict(learner.model.config),
        "optim": asdict(optim),
        "spec": asdict(learner.model.spec),
        "seed": state["seed"],
        "step_count": state["step_count"],
    }
    package = distribution(family_name)
    if package:
        content["package"] = package
    (folder / "model.json").write_text(json.dumps(content, indent=1) + "\n")
    write_checksums(folder)


def restore_learner(folder: Path, learner: Trainable) -> None:
    """Load a checkpoint's state into a learner of the same family, config and optimizers.

    Raises `InputError` if the folder holds no checkpoint, or one of other networks, and
    `DamagedError` if a file is not what was written; then the learner is as it was.
    """
    description, state = _read(folder), learner.state_dict()
    with _broken(folder):
        tensors = read_tensors(folder / WEIGHTS_FILE, _flat(state), learner.device)
        optimizers = read_nested(folder / OPTIMIZERS_FILE, state["optimizers"])
    learner.load_state_dict(
        {
            "seed": description.seed,
            "step_count": description.step_count,
            "optimizers": optimizers,
            **_nested(tensors, state),
        }
    )


def load_checkpoint(folder: Path) -> Checkpoint:
    """Load the model of a checkpoint and its networks, averaged where an average was kept.

    Leaves torch's random state as it was. Raises `InputError` if the folder holds no checkpoint, a
    broken one, or one of a family that is not installed.
    """
    description = _read(folder)
    module = _family(folder, description)
    with _broken(folder):
        model: Model = module.Model(
            from_dict(module.Config, description.config, "config."), description.spec
        )
        optim = from_dict(module.Optim, description.optim, "optim.")
        expected = _expected_state(model, optim)
        tensors = read_tensors(folder / WEIGHTS_FILE, _flat(expected), "cpu")
        with torch.random.fork_rng(devices=[]):  # they are initialised, and then overwritten
            networks = build_networks(model)
    state = _nested(tensors, expected)
    for name, network in networks.items():
        network.load_state_dict(state["averages"].get(name) or state["networks"][name])
        network.eval().requires_grad_(False)
    return Checkpoint(
        description.family, model, networks, optim, description.seed, description.step_count
    )


class Sampler(nn.Module):
    """A model as a function of one tensor, for export: noise (N, noise_dim) -> images (N, *shape).

    The input of a class-conditional model is (N, noise_dim + 1): its last column is the number of
    the class.
    """

    def __init__(self, model: Model, networks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.model = model
        self.networks = nn.ModuleDict(networks)
        self.in_features = model.noise_dim + is_conditional(model)

    def forward(self, inputs: Tensor) -> Tensor:
        noise, labels = inputs.tensor_split([self.model.noise_dim], dim=1)
        return self.model.generate(dict(self.networks.items()), noise, labels.long().flatten())


def load_sampler(folder: Path) -> tuple[nn.Module, int]:
    """Load the model of a checkpoint as a `Sampler`; returns it and its number of inputs."""
    checkpoint = load_checkpoint(folder)
    sampler = Sampler(checkpoint.model, checkpoint.networks).eval()
    return sampler, sampler.in_features


def _read(folder: Path) -> _Description:
    check_checksums(folder)
    try:
        with _broken(folder):
            return from_dict(_Description, read_object(folder / "model.json"), "model.json: ")
    except OSError as error:
        raise DamagedError(f"{folder}: no checkpoint: {error}") from error


def _family(folder: Path, description: _Description) -> Any:
    name, package = description.family, description.package
    if name not in names():
        supplier = f"package {shown_name(package)}" if package else "a package"
        raise InputError(
            f"{folder}: a model of the unknown family {shown(name)}: expected {supplier} to be "
            f"installed, which supplies it as an entry point of the group {GROUP!r}"
        )
    return family(name)


@contextmanager
def _broken(folder: Path) -> Iterator[None]:
    """Name the folder in an `InputError` of the block. Files that have the right checksums are not
    damaged; of an older version's nobody knows."""
    try:
        yield
    except InputError as error:
        kind = InputError if (folder / SUMS_FILE).exists() else DamagedError
        raise kind(f"{folder}: a broken checkpoint: {error}") from error


State = Mapping[str, Mapping[str, Mapping[str, Tensor]]]
"""Tensors by kind (`networks`, `averages`), network and name."""


def _expected_state(model: Model, optim: Any) -> State:
    """Return the tensors of a checkpoint of a model, on the meta device: their shapes.

    Raises `InputError` if its config describes no networks.
    """
    try:
        networks = build_networks(model, "meta")
    except InputError:
        raise
    except (ArithmeticError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"config = {shown(model.config)}: expected one of which networks can be built "
            f"({shown(str(error))})"
        ) from error
    states = {name: dict(network.state_dict()) for name, network in networks.items()}
    settings, objectives = adams(optim, model.objectives()), model.objectives()
    averaged = [n for o in objectives if settings[o.name].ema_decay for n in o.networks]
    return {"networks": states, "averages": {name: states[name] for name in averaged}}


def _flat(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a learner's state by their names in `weights.safetensors`."""
    return {
        f"{kind}.{network}.{name}": value
        for kind in _KINDS
        for network, values in state[kind].items()
        for name, value in values.items()
    }


def _nested(tensors: Mapping[str, Tensor], like: Mapping[str, Any]) -> State:
    """Return the inverse of `_flat`, of the same networks as `like` has."""
    return {
        kind: {
            network: {name: tensors[f"{kind}.{network}.{name}"] for name in values}
            for network, values in like[kind].items()
        }
        for kind in _KINDS
    }
