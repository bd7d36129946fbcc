"""Feature spaces: what samples are compared in, made once for a data set and the same for all."""

from pathlib import Path

import pytest
import torch

from gen_models.core.batches import unit
from gen_models.metrics import Moments, frechet_distance
from gen_models.metrics.lenet import train_lenet
from pipelines.data import load
from pipelines.features import extractor, space_name


def test_a_labelled_data_set_s_classifier_is_trained_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = load("digits", tmp_path)
    first = extractor(dataset, tmp_path)
    assert first.name == space_name(dataset) == "lenet-digits"
    assert first.accuracy is not None and first.accuracy > 0.97
    assert "lenet-digits" in capsys.readouterr().err
    again = extractor(dataset, tmp_path)
    assert capsys.readouterr().err == ""
    images = torch.from_numpy(dataset.validation)
    one, other = (found.space(images, 10)(unit(images)) for found in (first, again))
    assert one.shape == (len(images), 128) and torch.equal(one, other)
    assert torch.equal(one.view(1, *one.shape), first.space(images, 10)(unit(images)[None]))


def test_a_classifier_follows_from_its_data() -> None:
    dataset = load("digits", Path())
    assert dataset.train_labels is not None
    images = torch.from_numpy(dataset.train[:200])
    labels = torch.from_numpy(dataset.train_labels[:200])
    one, other = (train_lenet("x", images, labels, 10).state_dict() for _ in range(2))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_classifier_s_features_tell_good_images_from_bad(tmp_path: Path) -> None:
    dataset = load("digits", tmp_path)
    validation = torch.from_numpy(dataset.validation)
    space = extractor(dataset, tmp_path).space(validation, 10)
    real = Moments.of(space(unit(validation)))
    test, train = (unit(torch.from_numpy(each)) for each in (dataset.test, dataset.train[:300]))
    near = frechet_distance(real, Moments.of(space(test)))
    noisy = frechet_distance(real, Moments.of(space((train + 0.3 * torch.rand_like(train)) / 1.3)))
    fewer = frechet_distance(real, Moments.of(space(train[dataset.train_labels[:300] != 3])))
    assert float(near) < float(fewer) < float(noisy)


def test_unlabelled_data_are_compared_in_principal_components(tmp_path: Path) -> None:
    dataset = load("digits", tmp_path)
    path = tmp_path / "some.npz"
    import numpy as np

    np.savez(path, images=dataset.train[:300])
    unlabelled = load(f"npz:{path}", tmp_path)
    found = extractor(unlabelled, tmp_path)
    assert found.name == "pca-npz-some" and found.weights is None and found.summary == {}
    images = torch.from_numpy(unlabelled.validation)
    assert found.space(images, 0)(unit(images)).shape[0] == len(images)
