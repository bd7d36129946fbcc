"""A density of codes, sampled by a function of standard normal noise, so that it can be exported
together with the decoder."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

_ITERATIONS = 30


class GaussianMixture(nn.Module):
    """A mixture of Gaussians with full covariances; standard normal until it is fitted.

    The forward pass turns noise (N, dim + 1) into codes (N, dim): the first column chooses the
    component, through the normal distribution function; the others are scaled and shifted.
    """

    weights: Tensor
    means: Tensor
    factors: Tensor

    def __init__(self, num_components: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.full((num_components,), 1.0 / num_components))
        self.register_buffer("means", torch.zeros(num_components, dim))
        self.register_buffer("factors", torch.eye(dim).repeat(num_components, 1, 1))

    def forward(self, noise: Tensor) -> Tensor:
        uniform = torch.special.ndtr(noise[:, 0])
        component = (uniform[:, None] > self.weights.cumsum(0)).sum(1)
        component = component.clamp(max=len(self.weights) - 1)
        factors = self.factors[component]
        return self.means[component] + torch.einsum("nij,nj->ni", factors, noise[:, 1:])

    def fit(self, codes: Tensor, seed: int) -> None:
        """Fit to codes (N, dim) by expectation maximisation.

        Uses fewer components if there are fewer than ten codes for each; the others get weight 0.
        Does nothing if a code is not finite.
        """
        from sklearn.exceptions import ConvergenceWarning  # light: networks are built without it
        from sklearn.mixture import GaussianMixture as Fit  # light: networks are built without it

        if not bool(torch.isfinite(codes).all()):
            return
        num = max(1, min(len(self.weights), len(codes) // 10))
        values = codes.double().cpu().numpy()
        floor = 1e-6 * float(values.var()) + 1e-12
        fit = Fit(
            num,
            random_state=seed % 2**32,
            reg_covar=floor,
            max_iter=_ITERATIONS,
            init_params="k-means++",
        )
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", ConvergenceWarning
            )  # near convergence is enough to sample
            fitted = fit.fit(values)
        factors = torch.linalg.cholesky(torch.from_numpy(fitted.covariances_))
        self.weights.zero_()[:num] = torch.from_numpy(fitted.weights_).to(self.weights)
        self.means[:num] = torch.from_numpy(fitted.means_).to(self.means)
        self.factors[:num] = factors.to(self.factors)
