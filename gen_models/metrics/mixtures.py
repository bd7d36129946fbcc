"""Mixtures of Gaussians in the plane, on which mode collapse can be counted: VEEGAN's
(Srivastava et al. 2017), as PacGAN's code sets them (Lin et al. 2018).

What is given here is scaled into [0, 1], as all data are, with room around the outermost modes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import torch
from torch import Generator, Tensor

from gen_models.core.rng import seeded
from gen_models.metrics.modes import Modes, modes, nearest_mode

_MARGIN = 1.25
"""The half of the unit square's side, over how far modes are from its centre."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """Gaussians of one deviation, equally frequent, in the unit square."""

    name: str
    centres: Tensor
    """(K, 2)"""
    std: float
    """Of each coordinate."""

    @classmethod
    def scaled(cls, name: str, centres: Tensor, std: float) -> Mixture:
        """From centres (K, 2) around (0, 0) and a deviation in units of their own."""
        side = 2.0 * _MARGIN * float(centres.abs().max())
        return cls(name, 0.5 + centres / side, std / side)

    def sample(self, num: int, seed: int) -> tuple[Tensor, Tensor]:
        """`num` points (num, 2) and the mode of each, int64 (num,)."""
        generator = seeded(Generator(), seed, "mixture")
        chosen = torch.randint(len(self.centres), (num,), generator=generator)
        noise = torch.randn(num, 2, generator=generator)
        return self.centres[chosen] + self.std * noise, chosen

    def assign(self, samples: Tensor) -> Tensor:
        """The mode of each of the samples (N, 2); -1 for none."""
        return nearest_mode(samples, self.centres, self.std)

    def modes(self, samples: Tensor) -> Modes:
        """The modes of samples (N, 2)."""
        return modes(self.assign(samples), len(self.centres))


def ring8() -> Mixture:
    """Eight Gaussians on a circle: radius 1, deviation 0.01."""
    angle = torch.arange(8) * (2.0 * pi / 8)
    return Mixture.scaled("ring8", torch.stack([angle.cos(), angle.sin()], dim=1), std=0.01)


def grid25() -> Mixture:
    """Five times five Gaussians: centres from -4 to 4 at a spacing of 2, deviation 0.05."""
    line = torch.arange(-4.0, 5.0, 2.0)
    return Mixture.scaled("grid25", torch.cartesian_prod(line, line), std=0.05)


MIXTURES = {"ring8": ring8, "grid25": grid25}
