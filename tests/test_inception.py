"""Inception's features against torch-fidelity's own, with weights drawn at random: the published
ones are not there to be read. What is said where they are missing."""

import pickle
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
from pipelines.cli.main import main
from pipelines.data import load
from pipelines.evaluation.feature_extractor import Extractor, extractor, with_moments


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


def test_missing_weights_are_named(
    torch_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "runs"
    args = ["train", "gan", "--features", "inception", "--store", str(store)]
    assert main(args) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "features = 'inception': expected the network's weights in" in said
    assert (
        str(torch_home / "hub" / "checkpoints" / INCEPTION) in said
        and "--download gets them" in said
    )
    assert not list(store.glob("*/*"))


def test_a_file_that_holds_no_weights(inception_file: Path, tmp_path: Path) -> None:
    inception_file.write_bytes(b"<html>")
    with pytest.raises(InputError, match=f"weights in .*{INCEPTION}"):
        extractor(load("digits", tmp_path), tmp_path, "inception")


def sent(found: Extractor) -> Extractor:
    """As it arrives through Ray's object store, whose memory cannot be written to."""
    arrived: Extractor = pickle.loads(pickle.dumps(found))
    assert arrived.real is not None
    for array in (*arrived.weights.values(), *arrived.real.values()):
        array.flags.writeable = False
    return arrived


def test_its_weights_and_moments_travel(inception_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "few.npz"
    np.savez(path, images=some_pixels(24, 1, seed=0).permute(0, 2, 3, 1).numpy())
    dataset = load(f"npz:{path}", tmp_path)
    found = with_moments(extractor(dataset, tmp_path, "inception"), dataset, tmp_path)
    found = sent(found)
    inception_file.unlink()  # it lies where the command was given, and not where workers are
    validation = torch.from_numpy(dataset.validation)
    space, real = found.space(validation, 0), found.moments(torch.device("cpu"))
    assert space.name == "inception" and real is not None
    torch.testing.assert_close(vars(real), vars(Moments.of(space(unit(validation)))))
    assert len(list(tmp_path.glob("features/inception-*-validation.safetensors"))) == 1
