"""Mixtures of Gaussians in the plane, on which mode collapse is measured: those of VEEGAN
(Srivastava et al. 2017), with the parameters of PacGAN's code (Lin et al. 2018).

Points are scaled into [0, 1], as all data are, with a margin around the outermost modes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, pi, sqrt

import torch
from torch import Generator, Tensor

from gen_models.core.rng import seeded
from gen_models.metrics.modes import Modes, Scatter, modes, nearest_mode, spread

_MARGIN = 1.25
"""Half the side of the unit square, divided by the outermost modes' distance from its centre."""
_WITHIN_THREE = sqrt(2 * (1 - 4.5 * exp(-4.5) / (1 - exp(-4.5))))
"""Deviation from the centre of points of the plane within three deviations of a coordinate."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """Gaussians of equal deviation and frequency in the unit square."""

    name: str
    centres: Tensor
    """Means of the K Gaussians, (K, 2)."""
    std: float
    """Standard deviation of each coordinate."""

    @classmethod
    def scaled(cls, name: str, centres: Tensor, std: float) -> Mixture:
        """Make one from centres (K, 2) around (0, 0) and a deviation in the same units."""
        side = 2.0 * _MARGIN * float(centres.abs().max())
        return cls(name, 0.5 + centres / side, std / side)

    def sample(self, num: int, seed: int) -> tuple[Tensor, Tensor]:
        """Draw `num` points (num, 2); returns them and the mode of each, int64 (num,)."""
        generator = seeded(Generator(), seed, "mixture")
        chosen = torch.randint(len(self.centres), (num,), generator=generator)
        noise = torch.randn(num, 2, generator=generator)
        return self.centres[chosen] + self.std * noise, chosen

    def assign(self, samples: Tensor) -> Tensor:
        """Return the mode of each of the samples (N, 2), int64 (N,); -1 for none."""
        return nearest_mode(samples, self.centres, self.std)

    def modes(self, samples: Tensor) -> Modes:
        """Compute mode statistics of samples (N, 2)."""
        assigned, num = self.assign(samples), len(self.centres)
        scatter = Scatter.of(samples, assigned, num)
        own = torch.full((num,), self.std * _WITHIN_THREE, dtype=torch.float64)
        return modes(assigned, num, spread_within=spread(scatter, own))


def ring8() -> Mixture:
    """Return eight Gaussians on a circle: radius 1, deviation 0.01."""
    angle = torch.arange(8) * (2.0 * pi / 8)
    return Mixture.scaled("ring8", torch.stack([angle.cos(), angle.sin()], dim=1), std=0.01)


def grid25() -> Mixture:
    """Return 5 x 5 Gaussians: centres from -4 to 4 at a spacing of 2, deviation 0.05."""
    line = torch.arange(-4.0, 5.0, 2.0)
    return Mixture.scaled("grid25", torch.cartesian_prod(line, line), std=0.05)


MIXTURES = {"ring8": ring8, "grid25": grid25}
