"""Feature spaces: what samples are compared in, made once for a data set and the same for all."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gen_models.core.data import unit
from gen_models.core.errors import InputError
from gen_models.metrics import Moments, PCAFeatures, frechet_distance
from gen_models.metrics.lenet import train_lenet
from pipelines.data import load
from pipelines.evaluation.feature_extractor import extractor, features_of_test, with_moments
from pipelines.evaluation.feature_spaces import space_name
from pipelines.evaluation.validation import Evaluator
from pipelines.training.loop import as_batch


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
    assert found.name == "pca-npz-some" and found.kind == "pca" and found.summary == {}
    images = torch.from_numpy(unlabelled.validation)
    expected = PCAFeatures.of("pca", unit(images))(unit(images))
    assert torch.equal(found.space(images, 0)(unit(images)), expected)


def test_a_space_is_chosen_by_name(tmp_path: Path) -> None:
    digits, ring = load("digits", tmp_path), load("ring8", tmp_path)
    assert space_name(digits, "auto") == space_name(digits, "lenet") == "lenet-digits"
    assert space_name(digits, "pca") == "pca-digits"
    assert space_name(digits, "inception") == "inception"
    assert space_name(ring, "auto") == "pca-ring8"
    assert extractor(digits, tmp_path, "pca").name == "pca-digits"
    for dataset, name, why in (
        (ring, "lenet", "one of auto, pca, for ring8 holds no labelled images"),
        (ring, "inception", "one of auto, pca, for ring8 holds no images of 1 or 3 channels"),
        (digits, "vgg", "one of auto, lenet, pca, inception"),
    ):
        with pytest.raises(InputError, match=f"features = '{name}': expected {why}$"):
            space_name(dataset, name)


@pytest.mark.parametrize("features", ["lenet", "pca"])
def test_moments_are_computed_once_for_data_and_space(tmp_path: Path, features: str) -> None:
    dataset = load("digits", tmp_path)
    validation = torch.from_numpy(dataset.validation)
    found = with_moments(extractor(dataset, tmp_path, features), dataset, tmp_path)
    expected = Moments.of(found.space(validation, 10)(unit(validation)))
    real = found.moments(torch.device("cpu"))
    assert real is not None
    torch.testing.assert_close(vars(real), vars(expected))
    (path,) = tmp_path.glob(f"features/{found.name}-*-validation.safetensors")
    save_file({name: 2 * value for name, value in vars(real).items()}, path)
    again = with_moments(found, dataset, tmp_path).moments(torch.device("cpu"))
    assert again is not None and torch.equal(again.outer, 2 * real.outer)  # it was not computed

    # Other images of the same data set, and other weights, have moments of their own.
    binary = with_moments(found, dataset.with_binary_evaluation(), tmp_path)
    weights = {name: value + 0.1 for name, value in found.weights.items()}
    other = with_moments(replace(found, weights=weights), dataset, tmp_path)
    for each in (binary, other):
        moments = each.moments(torch.device("cpu"))
        assert moments is not None and not torch.allclose(moments.outer, again.outer)
        assert not torch.allclose(moments.outer, real.outer)


def test_an_evaluator_takes_the_moments_that_it_is_given(tmp_path: Path) -> None:
    dataset = load("digits", tmp_path)
    validation = as_batch(dataset.part("validation"))
    found = with_moments(extractor(dataset, tmp_path, "pca"), dataset, tmp_path)
    space, device = found.space(validation.images, 10), torch.device("cpu")
    given = Evaluator(validation, validation, space, found.moments(device))
    alone = Evaluator(validation, validation, space)
    torch.testing.assert_close(vars(given.real), vars(alone.real))
    other = Evaluator(
        validation, validation, space, Moments.of(space(unit(validation.images[:50])))
    )
    assert float(other.real.count) == 50.0


def test_features_of_test_images_are_computed_once(tmp_path: Path) -> None:
    dataset = load("digits", tmp_path)
    found, images = extractor(dataset, tmp_path, "pca"), torch.from_numpy(dataset.test)
    space = found.space(images, 10)
    first = features_of_test(found, space, dataset, tmp_path)
    torch.testing.assert_close(first, space(unit(images)))
    (path,) = tmp_path.glob("features/pca-digits-*-test.safetensors")
    save_file({"features": first + 1}, path)
    assert torch.equal(features_of_test(found, space, dataset, tmp_path), first + 1)
