"""Inception's features against torch-fidelity's own, with random weights, since the published ones
are not in the repository; the errors if weights are missing."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
from conftest import INCEPTION
from torch import Generator, Tensor
from torch.utils.data import TensorDataset
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from gen_models.core.data import unit
from gen_models.core.errors import InputError
from gen_models.metrics import Moments, frechet_distance
from gen_models.metrics.inception import Inception, load_weights, weights_file
from pipelines.data import load
from pipelines.evaluation.feature_spaces import (
    Extractor,
    make_extractor,
    require_features,
    with_moments,
)
from pipelines.store.layout import Store


def some_pixels(num: int, channels: int, seed: int) -> Tensor:
    """uint8 (N, C, 16, 16)"""
    generator = Generator().manual_seed(seed)
    return torch.randint(0, 256, (num, channels, 16, 16), generator=generator, dtype=torch.uint8)


def test_features_are_torch_fidelity_s(inception_file: Path) -> None:
    assert weights_file() == inception_file
    space = Inception("inception", load_weights(download=False))
    theirs = FeatureExtractorInceptionV3("x", ["2048"], str(inception_file))
    colour, grey = some_pixels(3, 3, seed=0), some_pixels(3, 1, seed=1)
    (expected,) = theirs(torch.cat([colour, grey.repeat(1, 3, 1, 1)]))
    assert expected.std() > 0.01
    found = torch.cat([space(unit(colour)), space(unit(grey))])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    # Values between those of uint8 become the nearest; images of several models keep their shape.
    near = (unit(colour) + 0.001).clamp(0, 1).view(3, 1, 3, 16, 16)
    torch.testing.assert_close(space(near)[:, 0], expected[:3], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_distance_is_torch_fidelity_s_fid(inception_file: Path) -> None:
    a, b = some_pixels(6, 3, seed=0), some_pixels(6, 3, seed=1) // 2
    expected = torch_fidelity.calculate_metrics(
        input1=PixelDataset(a),
        input2=PixelDataset(b),
        fid=True,
        cuda=False,
        verbose=False,
        cache=False,
        save_cpu_ram=True,
        batch_size=6,
        feature_extractor_weights_path=str(inception_file),
    )
    space = Inception("inception", load_weights(download=False))
    ours = frechet_distance(Moments.of(space(unit(a))), Moments.of(space(unit(b))))
    fid = expected["frechet_inception_distance"]
    assert float(ours) == pytest.approx(fid, rel=1e-3)


class PixelDataset(TensorDataset):
    """Images alone, as torch-fidelity takes them."""

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        image: Tensor = self.tensors[0][index]
        return image


def test_an_image_that_is_not_finite_has_no_features(inception_file: Path) -> None:
    space = Inception("inception", load_weights(download=False))
    images = unit(some_pixels(2, 1, seed=0))
    images[0, 0, 3, 3] = torch.nan
    found = space(images)
    assert torch.isnan(found[0]).all() and torch.isfinite(found[1]).all()


def test_missing_weights_are_named(torch_home: Path, tmp_path: Path) -> None:
    digits = load("digits", tmp_path)
    path = torch_home / "hub" / "checkpoints" / INCEPTION
    expected = (
        f"features = 'inception': expected the network's weights in {re.escape(str(path))}; "
        "--download gets them"
    )
    with pytest.raises(InputError, match=expected):
        require_features(digits, "inception", download=False)
    with pytest.raises(InputError, match=expected):
        make_extractor(digits, Store.at(tmp_path), "inception")
    require_features(digits, "inception", download=True)  # it may be downloaded later
    assert not (tmp_path / "features").exists()


def test_a_file_that_holds_no_weights(inception_file: Path, tmp_path: Path) -> None:
    inception_file.write_bytes(b"<html>")
    with pytest.raises(InputError, match=f"weights in .*{INCEPTION}"):
        make_extractor(load("digits", tmp_path), Store.at(tmp_path), "inception")


def sent(extractor: Extractor) -> Extractor:
    """Return it as it arrives through Ray's object store, whose memory is read-only."""
    arrived: Extractor = pickle.loads(pickle.dumps(extractor))
    assert arrived.real is not None
    for array in (*arrived.weights.values(), *arrived.real.values()):
        array.flags.writeable = False
    return arrived


def test_weights_and_moments_are_sent_with_the_extractor(
    inception_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "few.npz"
    np.savez(path, images=some_pixels(24, 1, seed=0).permute(0, 2, 3, 1).numpy())
    dataset, store = load(f"npz:{path}", tmp_path), Store.at(tmp_path)
    extractor = with_moments(make_extractor(dataset, store, "inception"), dataset, store)
    extractor = sent(extractor)
    inception_file.unlink()  # workers of another node do not have it
    validation = torch.from_numpy(dataset.validation)
    space, real = extractor.space(validation, 0), extractor.moments(torch.device("cpu"))
    assert space.name == "inception" and real is not None
    torch.testing.assert_close(vars(real), vars(Moments.of(space(unit(validation)))))
    assert len(list(store.features.glob("inception-*-validation.safetensors"))) == 1
