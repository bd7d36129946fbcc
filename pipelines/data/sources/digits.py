"""scikit-learn's handwritten digits, which are part of its package and need no download."""

import numpy as np

from pipelines.data.dataset import Arrays, Part
from pipelines.data.source import ReadRequest, Source

_MAX_LEVEL = 16
"""The brightest of the data set's 17 grey levels."""


def read(request: ReadRequest) -> Arrays:
    """Read the 1,797 images, (1, 8, 8), whose grey levels are scaled to 0 to 255."""
    from sklearn.datasets import load_digits  # light: names are listed without scikit-learn

    digits = load_digits()
    images = np.rint(digits.images[:, None] * (255 / _MAX_LEVEL)).astype(np.uint8)
    return Arrays(Part(images, digits.target.astype(np.int64)), None, num_classes=10)


SOURCE = Source(names=("digits",), read=read)
