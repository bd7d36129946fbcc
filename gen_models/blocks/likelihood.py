"""Likelihoods of images given a decoder's output."""

from typing import Any

import torch
from torch import Tensor


class _BernoulliNLL(torch.autograd.Function):
    """Twice as fast on a CPU as torch's `binary_cross_entropy_with_logits`, forward and
    backward, which is a tenth of a small model's step: log1p is what takes its time there."""

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
    """-log p(target) of each value, in nats, same shape as `logits`; `target` in [0, 1]."""
    nll: Tensor = _BernoulliNLL.apply(logits, target)[0]
    return nll
