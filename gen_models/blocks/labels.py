"""How networks are told the class of an image."""

import torch
from torch import Tensor


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """int64 (N,) -> (N, num_classes), of the default dtype. Unlike torch's, within `vmap` and in
    a recorded step: it does not look at the labels."""
    classes = torch.arange(num_classes, device=labels.device)
    return (labels[:, None] == classes).to(torch.get_default_dtype())


def label_maps(images: Tensor, labels: Tensor) -> Tensor:
    """Images (N, C, H, W) with a channel, all 0 or all 1, for each column of `labels` (N, L):
    (N, C + L, H, W)."""
    maps = labels[:, :, None, None].expand(-1, -1, *images.shape[-2:])
    return torch.cat([images, maps], dim=1)
