"""scikit-learn's digits."""

from pathlib import Path

import numpy as np
from support.data import SPLITS, all_images, sizes

from pipelines.data import load


def test_digits() -> None:
    data = load("digits", Path("nowhere"))
    assert sizes(data) == (1249, 249, 299)
    for split in SPLITS:
        images = getattr(data, split)
        assert images.dtype == np.uint8 and images.shape[1:] == (1, 8, 8)
        assert images.flags.c_contiguous and images.flags.writeable
    found = all_images(data)
    assert found.min() == 0 and found.max() == 255 and len(np.unique(found)) == 17
    assert data.spec.shape == (1, 8, 8) and data.spec.num_classes == 10


def test_digest_is_that_of_earlier_versions() -> None:
    assert load("digits", Path("nowhere")).digest == "baf95107c2e77c2d0426ab07427810d6"
