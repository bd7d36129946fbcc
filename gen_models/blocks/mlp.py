"""Fully connected networks."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

from torch import nn

Layer = Callable[[int, int], nn.Module]


def glorot_init(network: nn.Module) -> None:
    """Initialise linear layers for tanh: weights uniform with variance 2 / (inputs + outputs),
    biases 0 (Glorot & Bengio 2010)."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


def mlp(
    in_features: int,
    hidden: Sequence[int],
    out_features: int,
    *,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Build (N, …), flattened to (N, in_features), -> (N, out_features) with `hidden` widths."""
    body, features = mlp_features(in_features, hidden, activation=activation)
    return nn.Sequential(*body, nn.Linear(features, out_features))


def mlp_features(
    in_features: int,
    hidden: Sequence[int],
    *,
    activation: Callable[[], nn.Module],
    layer: Layer = nn.Linear,
) -> tuple[nn.Sequential, int]:
    """Build (N, …), flattened to (N, in_features), -> (N, F) with `hidden` widths; returns F
    too."""
    layers: list[nn.Module] = [nn.Flatten()]
    for narrow, wide in pairwise((in_features, *hidden)):
        layers += [layer(narrow, wide), activation()]
    return nn.Sequential(*layers), (in_features, *hidden)[-1]


def mlp_to_image(
    in_features: int,
    hidden: Sequence[int],
    shape: tuple[int, ...],
    *,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Build (N, in_features) -> (N, *shape) with `hidden` widths."""
    return nn.Sequential(
        mlp(in_features, hidden, prod(shape), activation=activation), nn.Unflatten(1, shape)
    )
