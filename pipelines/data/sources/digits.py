"""scikit-learn's handwritten digits, which are part of its package and need no download."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from pipelines.data.dataset import Arrays, Part
from pipelines.data.source import ReadRequest, Source

_MAX_LEVEL = 16
"""The brightest of the data set's 17 grey levels."""


def read(request: ReadRequest) -> Arrays:
    """Read the 1,797 images, (1, 8, 8), whose grey levels are scaled to 0 to 255.

    The file is read here because `sklearn.datasets.load_digits`, which does just this, takes two
    seconds to import.
    """
    package = find_spec("sklearn")
    assert package and package.origin
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    rows = np.loadtxt(file, delimiter=",")
    images = np.rint(rows[:, :-1] * (255 / _MAX_LEVEL)).astype(np.uint8)
    return Arrays(Part(images.reshape(-1, 1, 8, 8), rows[:, -1].astype(np.int64)), None, 10)


SOURCE = Source(names=("digits",), read=read)
