"""A checkpoint: a folder that holds a learner, and from which anyone can sample.

    model.json             family, config, optimizers, data spec, seed, position
    weights.safetensors    `networks.<network>.<tensor>`, and `averages.<network>.<tensor>`
    optimizers.pt          the optimizers' state; read with `weights_only=True`

Nothing in it is unpickled in a way that could run code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gen_models import family
from gen_models.core.config import from_dict
from gen_models.core.contract import Model, is_conditional
from gen_models.core.data import DataSpec
from gen_models.core.errors import InputError
from gen_models.training.learner import Learner


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder holds."""

    family: str
    model: Model
    networks: dict[str, nn.Module]
    """The networks to sample from, in evaluation mode on the CPU."""
    optim: Any
    seed: int
    step_count: int


def save_checkpoint(folder: Path, family_name: str, optim: Any, learner: Learner) -> None:
    """Write a learner into `folder`, which exists and is nobody else's yet."""
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
    (folder / "model.json").write_text(json.dumps(content, indent=1) + "\n")


def restore_learner(folder: Path, learner: Learner) -> None:
    """Put a checkpoint's state into a learner of the same family, config and optimizers."""
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
    """The model of a checkpoint and its networks, averaged where an average was kept.

    Raises `InputError` where the folder holds no checkpoint, or a broken one.
    """
    content = _read(folder)
    module = family(content["family"])
    spec = DataSpec(tuple(content["spec"]["shape"]), content["spec"]["num_classes"])
    model: Model = module.Model(from_dict(module.Config, content["config"]), spec)
    try:
        tensors = _nested(load_file(folder / "weights.safetensors"))
        networks = model.networks()
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
    """A model as a function of one tensor, to be exported: noise (N, noise_dim) -> (N, *shape). Of
    a class-conditional model, noise and behind it the number of the class (N, noise_dim + 1)."""

    def __init__(self, model: Model, networks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.model = model
        self.networks = nn.ModuleDict(networks)
        self.in_features = model.noise_dim + is_conditional(model)

    def forward(self, inputs: Tensor) -> Tensor:
        noise, behind = inputs.tensor_split([self.model.noise_dim], dim=1)
        return self.model.generate(dict(self.networks.items()), noise, behind.long().flatten())


def load_sampler(folder: Path) -> tuple[nn.Module, int]:
    """The model in a checkpoint as a `Sampler`, and the second dimension of what it takes."""
    checkpoint = load_checkpoint(folder)
    sampler = Sampler(checkpoint.model, checkpoint.networks).eval()
    return sampler, sampler.in_features


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
