"""Points of the plane from mixtures of Gaussians: the data on which mode collapse is counted."""

import numpy as np

from pipelines.data.dataset import Part, Source

MIXTURES = ("ring8", "grid25")
"""Those of `gen_models.metrics.mixtures`, whose import imports torch."""

NUM_POINTS = 36_000
"""Of which 25,000 are trained on."""
_SEED = 0


def read_mixture(name: str) -> Source:
    """One of `MIXTURES`, labelled by mode; the same points every time."""
    from gen_models.metrics import mixtures

    mixture = mixtures.MIXTURES[name]()
    points, modes = mixture.sample(NUM_POINTS, _SEED)
    part = Part(points.numpy().astype(np.float32), modes.numpy())
    return Source(part, None, len(mixture.centres))
