"""Stacks models of one structure: tensors (K, *shape) of K members, and functions of a model
mapped over all members with `torch.func.vmap`.

Members may differ in any float field of their config, which becomes a tensor, and in the widths
that the family names: a narrower member's tensors are padded with zeros at the end of each
dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import copy
from dataclasses import fields, replace
from functools import partial
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from gen_models.core.contract import Draws, Model, on
from gen_models.core.networks import after_update_modules, build_networks, convert_modules

Tensors = Mapping[str, Mapping[str, Tensor]]
"""Tensors by network and by their name in it."""


@torch.no_grad()
def stack(tensors: Sequence[Tensor]) -> Tensor:
    """Stack K tensors to (K, *shape), zero-padded to the largest size of each dimension."""
    shapes = {tensor.shape for tensor in tensors}
    if len(shapes) == 1:
        return torch.stack(list(tensors))
    widest = [max(sizes) for sizes in zip(*shapes, strict=True)]
    stacked = tensors[0].new_zeros(len(tensors), *widest)
    for index, tensor in enumerate(tensors):
        crop(stacked[index], tensor.shape).copy_(tensor)
    return stacked


def crop(tensor: Tensor, shape: torch.Size) -> Tensor:
    """Return a member's part of a padded tensor, the first entries of each dimension. A view."""
    return tensor[tuple(slice(size) for size in shape)]


def stack_by_name(members: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Stack the members' tensors of each name."""
    return {name: stack([member[name] for member in members]) for name in members[0]}


def structure(model: Model) -> Hashable:
    """Return a key that is equal for models that can be stacked: all of the config but widths and
    float fields, and whether each float field is 0, which removes a term from a loss."""
    config, numbers = model.config, _float_fields(model.config)
    parts: list[Any] = [type(model), model.spec, model.widths]
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in numbers:
            parts.append((field.name, on(value)))
        elif field.name not in model.widths:
            parts.append((field.name, value))
    return tuple(parts)


class Stacked:
    """Models of one structure, over which functions of one model and its tensors are mapped."""

    def __init__(self, models: Sequence[Model], device: torch.device, *, training: bool) -> None:
        first = models[0]
        widest = {w: max(getattr(m.config, w) for m in models) for w in first.widths}
        self._config = replace(first.config, **widest)
        self._make: Callable[[Any, Any], Model] = type(first)
        self._spec = first.spec
        self.numbers = {
            name: torch.tensor([getattr(m.config, name) for m in models], device=device)
            for name in sorted(_float_fields(first.config))
            if on(getattr(first.config, name))
        }
        model = self._make(self._config, first.spec)
        self.templates = {
            name: convert_modules(network.train(training), _mixed_precision_norm)
            for name, network in build_networks(model, "meta").items()
        }

    def map(self, function: Callable[..., Any], tensors: Tensors, *args: Any) -> Any:
        """Call `function(model, networks, *args)` for every member. Tensors in `tensors`, `args`
        and in the result are (K, …)."""

        def one(tensors: Tensors, numbers: Mapping[str, Tensor], *args: Any) -> Any:
            return function(self._model(numbers), self._networks(tensors), *args)

        return vmap(one)(tensors, self.numbers, *args)

    def after_update(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Call `after_update` of the modules in every member's network `name`, which changes
        buffers in `tensors` in place."""
        runner = _AfterUpdates(self.templates[name])
        if runner.modules_due:
            inner = {f"network.{key}": value for key, value in tensors.items()}
            vmap(lambda own: functional_call(runner, own, (own,)))(inner)

    def _model(self, numbers: Mapping[str, Tensor]) -> Model:
        config = copy(self._config)
        for name, value in numbers.items():
            object.__setattr__(config, name, value)  # frozen, and checked for plain numbers
        return self._make(config, self._spec)

    def _networks(self, tensors: Tensors) -> dict[str, Callable[..., Any]]:
        return {
            name: partial(_call, template, dict(tensors[name]))
            for name, template in self.templates.items()
        }


class Alone:
    """Networks of one model, to sample from and to validate."""

    def __init__(self, model: Model, networks: Mapping[str, nn.Module]) -> None:
        self.model, self.networks = model, networks

    def map(self, function: Callable[..., Any], draw: Callable[[Model], Draws]) -> Any:
        """Return `function(model, networks, draw(model))`."""
        return function(self.model, self.networks, draw(self.model))


class Ensemble:
    """Networks of several models of one structure, to sample from and to validate together."""

    def __init__(
        self, models: Sequence[Model], networks: Sequence[Mapping[str, nn.Module]]
    ) -> None:
        self.models = list(models)
        tensors = {n: [m[n].state_dict() for m in networks] for n in networks[0]}
        self._tensors = {name: stack_by_name(states) for name, states in tensors.items()}
        device = next(t.device for state in self._tensors.values() for t in state.values())
        self._stacked = Stacked(models, device, training=False)

    def map(self, function: Callable[..., Any], draw: Callable[[Model], Draws]) -> Any:
        """Return `function(model, networks, draw(model))` of every member, as tensors (K, …)."""
        draws = stack_draws([draw(model) for model in self.models])
        return self._stacked.map(function, self._tensors, draws)


def stack_draws(draws: Sequence[Draws]) -> Draws:
    """Stack one step's random numbers of each member, padded, to (K, N, …)."""
    return stack_by_name(draws) if draws[0] else {}


class _BatchNorm2d(nn.BatchNorm2d):
    """Batch norm in its parameters' precision: within vmap torch's own does not accept bfloat16
    inputs with float32 parameters."""

    def forward(self, input: Tensor) -> Tensor:
        assert self.running_mean is not None
        return super().forward(input.to(self.running_mean.dtype)).to(input.dtype)


def _mixed_precision_norm(module: nn.Module) -> nn.Module | None:
    """A template's batch norm as a `_BatchNorm2d` of the same settings, on the meta device."""
    if type(module) is not nn.BatchNorm2d or not module.track_running_stats:
        return None
    settings = (module.num_features, module.eps, module.momentum, module.affine)
    return _BatchNorm2d(*settings, device="meta").train(module.training)


def _call(template: nn.Module, tensors: dict[str, Tensor], *args: Any) -> Any:
    return functional_call(template, tensors, args)


class _AfterUpdates(nn.Module):
    """The `after_update` of all modules in a network as a forward pass for `functional_call`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.modules_due = len(after_update_modules([network])) > 0

    def forward(self, own: Mapping[str, Tensor]) -> Tensor:
        for module in after_update_modules([self.network]):
            module.after_update()
        return next(iter(own.values()))


def _float_fields(config: Any) -> set[str]:
    hints = get_type_hints(type(config))
    return {field.name for field in fields(config) if hints[field.name] is float}
