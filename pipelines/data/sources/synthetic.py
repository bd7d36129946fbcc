"""Points of the plane drawn from mixtures of Gaussians, on which mode collapse is counted.

The mixtures are those of VEEGAN (Srivastava et al. 2017) with PacGAN's settings (Lin et al. 2018).
"""

import numpy as np

from pipelines.data.dataset import Arrays, Part
from pipelines.data.source import ReadRequest, Source

NUM_POINTS = 36_000
"""Points in all three splits; 25,000 of them are for training."""
_SEED = 0


def read(request: ReadRequest) -> Arrays:
    """Draw points, float32 (N, 2), with their modes as labels; the same points every time."""
    from gen_models.metrics import mixtures  # light: names are listed without torch

    mixture = mixtures.MIXTURES[request.name]()
    points, modes = mixture.sample(NUM_POINTS, _SEED)
    part = Part(points.numpy().astype(np.float32), modes.numpy())
    return Arrays(part, None, len(mixture.centres))


# The keys of `gen_models.metrics.mixtures.MIXTURES`, whose import imports torch.
SOURCE = Source(names=("ring8", "grid25"), read=read)
