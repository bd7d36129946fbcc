"""Feature spaces: which a data set can be compared in, and that each is fitted once."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.evaluation import Fitted
from torch import Tensor

from gen_models.core.data import unit
from gen_models.core.errors import InputError
from gen_models.metrics import Moments, PCAFeatures, frechet_distance, lenet
from gen_models.metrics.lenet import train_lenet
from pipelines.data import Dataset, load
from pipelines.data.batches import as_batch
from pipelines.evaluation.feature_spaces import (
    features_of_test,
    make_extractor,
    require_features,
    resolve,
    space_name,
    with_moments,
)
from pipelines.evaluation.validation import Evaluator
from pipelines.store.layout import Store

CPU = torch.device("cpu")


def test_the_classifier_of_a_labelled_data_set_is_trained_once(
    digits: Dataset, fitted: Fitted, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pipelines.evaluation")
    first = fitted.extractor
    assert first.name == space_name(digits) == "lenet-digits"
    assert first.accuracy is not None and first.accuracy > 0.97
    assert first.summary == {"features/accuracy": first.accuracy}
    assert len(fitted.messages) == 2 and "training lenet-digits" in fitted.messages[0]
    again = make_extractor(digits, Store.at(fitted.root))
    assert not caplog.records and again.accuracy == first.accuracy
    images = torch.from_numpy(digits.validation)
    one, other = (each.space(images, 10)(unit(images)) for each in (first, again))
    assert one.shape == (len(images), 128) and torch.equal(one, other)
    assert torch.equal(one.view(1, *one.shape), first.space(images, 10)(unit(images)[None]))


def test_the_classifier_is_a_function_of_its_data(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lenet, "_MIN_STEPS", 20)
    assert digits.train_labels is not None
    images = torch.from_numpy(digits.train[:200])
    labels = torch.from_numpy(digits.train_labels[:200])
    one, other = (train_lenet("x", images, labels, 10).state_dict() for _ in range(2))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_distances_in_the_classifier_s_features_rank_images(digits: Dataset, store: Store) -> None:
    """The test images are nearer than images without one class, those nearer than noisy ones."""
    validation = torch.from_numpy(digits.validation)
    space = make_extractor(digits, store).space(validation, 10)
    real = Moments.of(space(unit(validation)))
    test, train = (unit(torch.from_numpy(each)) for each in (digits.test, digits.train[:300]))
    assert digits.train_labels is not None
    noise = torch.rand(train.shape, generator=torch.Generator().manual_seed(0))
    near = frechet_distance(real, Moments.of(space(test)))
    noisy = frechet_distance(real, Moments.of(space((train + 0.3 * noise) / 1.3)))
    fewer = frechet_distance(real, Moments.of(space(train[digits.train_labels[:300] != 3])))
    assert float(near) < float(fewer) < float(noisy)


def test_unlabelled_data_are_compared_in_principal_components(
    digits: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "some.npz"
    np.savez(path, images=digits.train[:300])
    unlabelled = load(f"npz:{path}", tmp_path)
    extractor = make_extractor(unlabelled, Store.at(tmp_path))
    assert extractor.name == "pca-npz-some" and extractor.kind == "pca"
    assert extractor.summary == {}
    images = torch.from_numpy(unlabelled.validation)
    expected = PCAFeatures.of("pca", unit(images))(unit(images))
    assert torch.equal(extractor.space(images, 0)(unit(images)), expected)


def test_a_space_is_chosen_by_name(digits: Dataset, tmp_path: Path) -> None:
    ring = load("ring8", tmp_path)
    assert space_name(digits, "auto") == space_name(digits, "lenet") == "lenet-digits"
    assert space_name(digits, "pca") == "pca-digits"
    assert space_name(digits, "inception") == "inception"
    assert space_name(ring, "auto") == "pca-ring8"
    assert resolve("auto", ring) == "pca" and resolve("auto", digits) == "lenet"
    assert make_extractor(digits, Store.at(tmp_path), "pca").name == "pca-digits"
    reason = "because ring8 holds no"
    for dataset, name, expected in (
        (ring, "lenet", f"one of auto, pca, {reason} labelled images of at least 4 pixels a side"),
        (ring, "inception", f"one of auto, pca, {reason} images of 1 or 3 channels"),
        (digits, "vgg", "one of auto, lenet, pca, inception"),
    ):
        for function in (
            lambda d, n: space_name(d, n),
            lambda d, n: require_features(d, n, download=True),
            lambda d, n: make_extractor(d, Store.at(tmp_path), n),
        ):
            with pytest.raises(InputError, match=f"features = '{name}': expected {expected}$"):
                function(dataset, name)


def _replace(path: Path, tensors: dict[str, Tensor]) -> None:
    """Replace a cached file by one of an older version, which has no checksum."""
    save_file(tensors, path)
    path.with_name(f"{path.name}.sha256").unlink()


@pytest.mark.parametrize("features", ["lenet", "pca"])
def test_moments_are_computed_once_for_data_and_space(
    digits: Dataset, store: Store, features: str
) -> None:
    validation = torch.from_numpy(digits.validation)
    extractor = with_moments(make_extractor(digits, store, features), digits, store)
    expected = Moments.of(extractor.space(validation, 10)(unit(validation)))
    real = extractor.moments(CPU)
    assert real is not None
    torch.testing.assert_close(vars(real), vars(expected))
    (path,) = store.features.glob(f"{extractor.name}-*-validation.safetensors")
    _replace(path, {name: 2 * value for name, value in vars(real).items()})
    again = with_moments(extractor, digits, store).moments(CPU)
    assert again is not None and torch.equal(again.outer, 2 * real.outer)  # it was not computed

    # Other images of the same data set, and other weights, have moments of their own.
    binary = with_moments(extractor, digits.with_binary_evaluation(), store)
    weights = {name: value + 0.1 for name, value in extractor.weights.items()}
    other = with_moments(replace(extractor, weights=weights), digits, store)
    for each in (binary, other):
        moments = each.moments(CPU)
        assert moments is not None and not torch.allclose(moments.outer, again.outer)
        assert not torch.allclose(moments.outer, real.outer)


def test_cached_features_are_found_by_every_later_process(digits: Dataset, store: Store) -> None:
    """A safetensors file is read in an arbitrary order of its tensors, and the names of further
    files hold a digest of them. Each `make_extractor` reads the file again."""
    for _ in range(8):
        extractor = make_extractor(digits, store)
        with_moments(extractor, digits, store)
        features_of_test(extractor, digits, store)
    assert len(list(store.features.glob("lenet-*-validation.safetensors"))) == 1
    assert len(list(store.features.glob("lenet-*-test.safetensors"))) == 1


def test_a_fitted_space_has_the_file_name_that_stores_have_had(
    digits: Dataset, tmp_path: Path
) -> None:
    """Names as versions before this layout wrote them, so that their stores are not fitted
    again."""
    store = Store.at(tmp_path)
    make_extractor(digits, store, "pca")
    assert [path.name for path in store.features.glob("*.safetensors")] == [
        "pca-digits-d1203b1909b5.safetensors"
    ]
    weights = store.features / f"lenet-digits-{digits.digest[:12]}.safetensors"
    save_file({"marker": torch.ones(1)}, weights)
    weights.with_suffix(".json").write_text('{"accuracy": 0.5}')
    extractor = make_extractor(digits, store, "lenet")
    assert extractor.accuracy == 0.5 and [*extractor.weights] == ["marker"]


def test_an_evaluator_takes_the_moments_that_it_is_given(digits: Dataset, store: Store) -> None:
    validation = as_batch(digits.part("validation"))
    extractor = with_moments(make_extractor(digits, store, "pca"), digits, store)
    space = extractor.space(validation.images, 10)
    given = Evaluator(validation, validation, space, extractor.moments(CPU))
    computed = Evaluator(validation, validation, space)
    torch.testing.assert_close(vars(given.real), vars(computed.real))
    few = Moments.of(space(unit(validation.images[:50])))
    assert float(Evaluator(validation, validation, space, few).real.count) == 50.0


def test_features_of_test_images_are_computed_once(digits: Dataset, store: Store) -> None:
    extractor, images = make_extractor(digits, store, "pca"), torch.from_numpy(digits.test)
    first = features_of_test(extractor, digits, store)
    expected = extractor.space(images, 10)(unit(images)).numpy()
    np.testing.assert_allclose(first, expected)
    (path,) = store.features.glob("pca-digits-*-test.safetensors")
    _replace(path, {"features": torch.from_numpy(first) + 1})
    assert np.array_equal(features_of_test(extractor, digits, store), first + 1)


@pytest.mark.parametrize("content", ["", "{}", '{"accuracy": "x"}', '{"accuracy": 7}', "[" * 9999])
def test_a_classifier_whose_accuracy_is_damaged_is_trained_again(
    content: str, digits: Dataset, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lenet, "_MIN_STEPS", 5)
    (path,) = store.features.glob("*.json")
    path.write_text(content)
    some = replace(digits, train=digits.train[:40], train_labels=_first(digits.train_labels, 40))
    again = make_extractor(some, store)
    assert again.accuracy is not None and 0 <= again.accuracy < 0.9
    assert make_extractor(some, store).accuracy == again.accuracy


def _first(labels: np.ndarray | None, num: int) -> np.ndarray:
    assert labels is not None
    return labels[:num]


@pytest.mark.parametrize("features", ["lenet", "pca"])
def test_weights_of_another_space_are_named(features: str, digits: Dataset, store: Store) -> None:
    extractor = make_extractor(digits, store, features)
    images = torch.from_numpy(digits.validation)
    other = {name: array[:1] for name, array in extractor.weights.items()}
    for weights in (other, {"x": np.zeros(3)}, {}):
        with pytest.raises(InputError, match=rf"feature space {features}-digits: .*remove"):
            replace(extractor, weights=weights).space(images, 10)


@pytest.mark.parametrize(("side", "found"), [(3, "pca"), (4, "lenet")])
def test_images_that_are_too_small_to_be_halved_twice(
    side: int, found: str, tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, side, side), np.uint8)
    np.savez(tmp_path / "small.npz", images=images, labels=np.arange(60) % 3)
    small = load(f"npz:{tmp_path}/small.npz", tmp_path)
    assert resolve("auto", small) == found
    if found == "lenet":
        assert resolve("lenet", small) == "lenet"
    else:
        with pytest.raises(InputError, match="holds no labelled images of at least 4 pixels a si"):
            resolve("lenet", small)
