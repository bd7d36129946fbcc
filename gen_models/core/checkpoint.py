"""Checkpoints: folders with the state of a learner, from which training goes on and models sample.

    model.json             family, config, optimizers, data spec, seed, position; the package that
                           supplies the family, if it is not a built-in one
    weights.safetensors    `networks.<network>.<tensor>`, and `averages.<network>.<tensor>`
    optimizers.pt          the optimizers' state; read with `weights_only=True`

Reading one runs no code from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gen_models.core.config import from_dict
from gen_models.core.contract import Model, is_conditional
from gen_models.core.data import DataSpec
from gen_models.core.errors import InputError
from gen_models.core.families import GROUP, distribution, family, names
from gen_models.core.networks import build_networks


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


def save_checkpoint(folder: Path, family_name: str, optim: Any, learner: Trainable) -> None:
    """Write a learner's state into `folder`, an existing empty folder."""
    state = learner.state_dict()
    tensors = {
        f"{kind}.{network}.{name}": value.detach().cpu().contiguous()
        for kind in ("networks", "averages")
        for network, values in state[kind].items()
        for name, value in values.items()
    }
    save_file(tensors, folder / "weights.safetensors")
    torch.save(state["optimizers"], folder / "optimizers.pt")
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


def restore_learner(folder: Path, learner: Trainable) -> None:
    """Load a checkpoint's state into a learner of the same family, config and optimizers."""
    content = _read(folder)
    tensors = _nested(load_file(folder / "weights.safetensors", device=str(learner.device)))
    optimizers = torch.load(
        folder / "optimizers.pt", weights_only=True, map_location=learner.device
    )
    learner.load_state_dict(
        {
            "seed": content["seed"],
            "step_count": content["step_count"],
            "networks": {name: tensors["networks"].get(name, {}) for name in learner.networks},
            "averages": tensors.get("averages", {}),
            "optimizers": optimizers,
        }
    )


def load_checkpoint(folder: Path) -> Checkpoint:
    """Load the model of a checkpoint and its networks, averaged where an average was kept.

    Leaves torch's random state as it was. Raises `InputError` if the folder holds no checkpoint, a
    broken one, or one of a family that is not installed.
    """
    content = _read(folder)
    module = _family(folder, content)
    spec = DataSpec(tuple(content["spec"]["shape"]), content["spec"]["num_classes"])
    model: Model = module.Model(from_dict(module.Config, content["config"]), spec)
    try:
        tensors = _nested(load_file(folder / "weights.safetensors"))
        with torch.random.fork_rng(devices=[]):  # they are initialised, and then overwritten
            networks = build_networks(model)
        for name, network in networks.items():
            averaged = tensors.get("averages", {}).get(name)
            network.load_state_dict(averaged or tensors["networks"].get(name, {}))
            network.eval().requires_grad_(False)
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        raise InputError(f"{folder}: a broken checkpoint: {error}") from error
    optim = from_dict(module.Optim, content["optim"])
    return Checkpoint(
        content["family"], model, networks, optim, content["seed"], content["step_count"]
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


def _family(folder: Path, content: Mapping[str, Any]) -> Any:
    name, package = content["family"], content.get("package")
    if name not in names():
        supplier = f"package {package}" if package else "a package"
        raise InputError(
            f"{folder}: a model of the unknown family {name!r}: expected {supplier} to be "
            f"installed, which supplies it as an entry point of the group {GROUP!r}"
        )
    return family(name)


def _read(folder: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((folder / "model.json").read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: no checkpoint: {error}") from error
    return content


def _nested(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, dict[str, Tensor]]]:
    nested: dict[str, dict[str, dict[str, Tensor]]] = {}
    for key, value in tensors.items():
        kind, network, name = key.split(".", 2)
        nested.setdefault(kind, {}).setdefault(network, {})[name] = value
    return nested
