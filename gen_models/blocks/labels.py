"""Class labels as inputs of networks."""

import torch
from torch import Tensor


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Encode labels: int64 (N,) -> (N, num_classes), of the default dtype.

    Unlike torch's it works within `vmap` and in CUDA graphs, because it does not read the values.
    """
    classes = torch.arange(num_classes, device=labels.device)
    return (labels[:, None] == classes).to(torch.get_default_dtype())


def label_maps(images: Tensor, labels: Tensor) -> Tensor:
    """Append to images (N, C, H, W) a constant channel for each column of `labels` (N, L):
    (N, C + L, H, W)."""
    maps = labels[:, :, None, None].expand(-1, -1, *images.shape[-2:])
    return torch.cat([images, maps], dim=1)
