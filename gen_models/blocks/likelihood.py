"""Negative log-likelihoods of images, given a decoder's output."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

_MOST_FACTORS = 120


class _BernoulliNLL(torch.autograd.Function):
    """Binary cross-entropy of logits, forward and backward twice as fast on a CPU as torch's
    `binary_cross_entropy_with_logits`, which computes a slow log1p: a tenth of a small model's
    step."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.sigmoid(logits)
        # log(1 + exp(x)) = max(x, 0) - log(sigmoid(|x|)), and sigmoid(|x|) >= 1/2
        softplus = torch.relu(logits) - torch.maximum(mean, 1.0 - mean).log()
        return softplus - logits * target, mean - target

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return slope * gradients[0], None


def bernoulli_nll(logits: Tensor, target: Tensor) -> Tensor:
    """Return -log p(target) of each value in nats, of the shape of `logits`. `target` has values
    in [0, 1] and a shape that broadcasts to that of `logits`."""
    nll: Tensor = _BernoulliNLL.apply(logits, target)[0]
    return nll


def bernoulli_image_nll(logits: Tensor, target: Tensor) -> Tensor:
    """Return -log p(target) of each image (…, N) in nats; logits (…, N, *shape), target (N,
    *shape).

    Several times as fast as the sum of `bernoulli_nll`; without gradients, for evaluation. In
    log(1 + exp(x)) = x / 2 + |x| / 2 + log(1 + exp(-|x|)) the arguments of the last logarithm are
    in [1, 2], so one logarithm of the product of many replaces many logarithms.
    """
    x = logits.flatten(1 - target.dim())
    linear = torch.einsum("...np,np->...n", x, 0.5 - target.flatten(1))
    size = x.abs()
    linear += 0.5 * size.sum(-1)
    factors = size.neg_().exp_().add_(1.0)
    groups = factors.view(*factors.shape[:-1], -1, _factors(factors.shape[-1]))
    nll: Tensor = linear + groups.prod(-1).log().sum(-1)
    return nll


@cache
def _factors(num_values: int) -> int:
    """Return the largest divisor d of `num_values` for which 2**d is a float32."""
    return max(n for n in range(1, _MOST_FACTORS + 1) if num_values % n == 0)
