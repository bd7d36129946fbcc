"""Arrays as batches of tensors."""

import warnings

import numpy as np
import torch
from support.data import pixels

from pipelines.data.batches import as_batch
from pipelines.data.dataset import Part


def test_batch_shares_the_memory_of_read_only_arrays_without_a_warning() -> None:
    images, labels = pixels(6, 1, 4, 4), np.arange(6)
    images.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = as_batch(Part(images, labels))
    assert batch.images.dtype == torch.uint8 and batch.labels.tolist() == list(range(6))
    assert batch.images.data_ptr() == images.ctypes.data
    assert np.array_equal(batch.images.numpy(), images)


def test_unlabelled_images_have_the_label_0() -> None:
    batch = as_batch(Part(pixels(3, 1, 2, 2), None), "cpu")
    assert batch.labels.tolist() == [0, 0, 0] and batch.labels.dtype == torch.int64
