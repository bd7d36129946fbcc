"""Points of mixtures of Gaussians."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.data import sizes

from gen_models.metrics import mixtures, nearest_mode
from pipelines.data import load
from pipelines.data.sources.synthetic import SOURCE as SYNTHETIC


@pytest.mark.parametrize("name", SYNTHETIC.names)
def test_mixtures(name: str, tmp_path: Path) -> None:
    data, again = load(name, tmp_path), load(name, tmp_path)
    mixture = mixtures.MIXTURES[name]()
    assert sizes(data) == (25_000, 5_000, 6_000)
    assert data.spec.shape == (2,) and data.num_classes == len(mixture.centres)
    assert data.train.dtype == np.float32 and data.train.flags.c_contiguous
    assert data.train.min() > 0.0 and data.train.max() < 1.0
    assert data.train_labels is not None and data.digest == again.digest
    points, labels = torch.from_numpy(data.train), torch.from_numpy(data.train_labels)
    assert torch.equal(nearest_mode(points, mixture.centres, mixture.std, within=9.0), labels)


def test_every_mixture_has_a_name() -> None:
    assert tuple(mixtures.MIXTURES) == SYNTHETIC.names


def test_digests_are_those_of_earlier_versions(tmp_path: Path) -> None:
    digests = {name: load(name, tmp_path).digest for name in SYNTHETIC.names}
    assert digests["ring8"] == "195caefa4b29d0de7c8e58c4978bef52"
    assert digests["grid25"] == "e322af81b0b61b04bf482ce5acc76d7f"
