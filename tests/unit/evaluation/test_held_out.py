"""Evaluation of untrained models on the test split, in this process and on two workers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.evaluation import evaluate_in_two_processes, untrained

from gen_models import Batch
from gen_models.core.data import unit
from gen_models.core.errors import InputError
from gen_models.core.sampling import sample
from pipelines.config.evaluation import HeldOutConfig
from pipelines.data import Dataset, load
from pipelines.evaluation import held_out
from pipelines.evaluation.feature_spaces import space_name
from pipelines.evaluation.held_out import (
    HELD_OUT_METRICS,
    HeldOutContext,
    HeldOutMetric,
    HeldOutResults,
    evaluate_held_out,
    make_mode_classifier,
    make_task,
)
from pipelines.store.layout import Store

CPU = torch.device("cpu")
SMALL = HeldOutConfig(num=300, importance_samples=5, images=5)


def test_modes_of_a_mixture_are_counted(tmp_path: Path) -> None:
    ring = load("ring8", tmp_path)
    checkpoint = untrained("gan", ring.spec, tmp_path / "model")
    task = make_task(replace(SMALL, num=1000), checkpoint, ring, Store.at(tmp_path))
    results = evaluate_held_out(task, CPU)
    metrics = results.metrics
    assert 0.0 <= metrics["test/modes/ring8/1000"] < 8.0  # it is untrained
    assert 0.0 <= metrics["test/mode_share/ring8/1000"] < 0.5
    assert metrics["test/fd/pca-ring8/1000"] > 0.0
    assert results.tags["test/images"] == str(len(ring.test))
    found = "True: of 1000 samples 8 of 8 modes lost, with 100.00% of the data (0.00% by chance), "
    assert results.tags["collapsed"].startswith(found)
    assert all(np.isfinite(value) for value in metrics.values())


def test_samples_are_compared_in_the_space_that_is_asked_for(
    digits: Dataset, store: Store, tmp_path: Path
) -> None:
    checkpoint = untrained("vae", digits.spec, tmp_path / "model")

    def metrics(features: str) -> dict[str, float]:
        task = make_task(SMALL, checkpoint, digits, store, features)
        return dict(evaluate_held_out(task, CPU).metrics)

    pca, lenet = metrics("pca"), metrics("lenet")
    assert "test/fd/pca-digits/300" in pca and "test/fd/lenet-digits/300" not in pca
    assert "test/fd/lenet-digits/300" in lenet and "test/fd/pca-digits/300" not in lenet
    # Modes are the classes of the classifier, whatever samples are compared in.
    assert "test/modes/lenet-digits/300" in pca and "test/nll/iw5/5" in pca
    same = {name for name in pca if "pca" not in name}
    assert {name: pca[name] for name in same} == {name: lenet[name] for name in same}
    # At least as many samples as test images: precision and recall name the smaller number.
    assert len(digits.test) == 299 and "test/precision/pca-digits/299" in pca


def test_label_accuracy_is_that_of_the_classes_asked_for(
    digits: Dataset, store: Store, tmp_path: Path
) -> None:
    checkpoint = untrained("vae", digits.spec, tmp_path / "model", conditional=True)
    task = make_task(replace(SMALL, num=2000), checkpoint, digits, store, "pca")
    metrics = evaluate_held_out(task, CPU).metrics
    labels = torch.from_numpy(task.test.labels).repeat(10)[:2000]
    classifier = make_mode_classifier(digits, store)
    assert classifier is not None
    samples = sample(checkpoint.model, checkpoint.networks, 2000, 1, labels=labels)
    expected = (classifier.assign(samples) == labels).double().mean()
    found = metrics["test/label_accuracy/lenet-digits/2000"]
    assert found == pytest.approx(float(expected))
    assert metrics["test/nll/iw5/5"] >= 0.0


def test_reconstructions_are_compared_with_every_test_image(
    digits: Dataset, store: Store, tmp_path: Path
) -> None:
    checkpoint = untrained("autoencoder", digits.spec, tmp_path / "model")
    task = make_task(SMALL, checkpoint, digits, store, "pca")
    metrics = evaluate_held_out(task, CPU).metrics
    test = unit(torch.from_numpy(digits.test))
    error = checkpoint.model.reconstruct(checkpoint.networks, Batch.of(test)) - test  # type: ignore[attr-defined]
    expected = 0.5 * float(error.square().flatten(1).sum(1).mean())
    assert metrics["test/squared_error"] == pytest.approx(expected, rel=1e-5)
    assert not any("nll" in name for name in metrics)


def test_unlabelled_images_have_no_modes(digits: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "few.npz"
    np.savez(path, images=digits.train[:60])
    few, store = load(f"npz:{path}", tmp_path), Store.at(tmp_path)
    assert make_mode_classifier(few, store) is None
    checkpoint = untrained("gan", few.spec, tmp_path / "model")
    results = evaluate_held_out(make_task(replace(SMALL, num=8), checkpoint, few, store), CPU)
    assert "collapsed" not in results.tags and not any("modes" in n for n in results.metrics)
    assert results.metrics["test/fd/pca-npz-few/8"] > 0.0
    cached = sorted(path.name.rpartition("-")[2] for path in store.features.iterdir())
    assert "test.safetensors" in cached
    assert not any("validation" in name for name in cached)  # nobody needed it


def test_modes_of_each_kind_of_data(digits: Dataset, store: Store) -> None:
    ring = load("ring8", Path())
    classifier = make_mode_classifier(ring, store)
    assert classifier is not None and classifier.name == "ring8"
    modes = classifier.modes(torch.from_numpy(ring.test))
    assert modes.found == 8 and not modes.collapsed and modes.share > 0.98
    classifier = make_mode_classifier(digits, store)
    assert classifier is not None and classifier.name == space_name(digits, "lenet")
    images = unit(torch.from_numpy(digits.test))
    assert digits.test_labels is not None
    zeros = classifier.modes(images[torch.from_numpy(digits.test_labels) == 0])
    assert zeros.found < 4 and zeros.collapsed and zeros.share == 1.0


def test_a_further_metric_is_a_line_of_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Values that are not finite are left out, because MLflow would rank them as the largest."""

    def brightness(context: HeldOutContext) -> dict[str, float]:
        return {"test/brightness": float(context.samples.mean()), "test/nothing": float("nan")}

    further = HeldOutMetric(lambda model, task: task.num_classes > 0, brightness)
    monkeypatch.setattr(held_out, "HELD_OUT_METRICS", (*HELD_OUT_METRICS, further))
    ring = load("ring8", tmp_path)
    checkpoint = untrained("gan", ring.spec, tmp_path / "model")
    task = make_task(SMALL, checkpoint, ring, Store.at(tmp_path))
    metrics = evaluate_held_out(task, CPU).metrics
    labels = torch.from_numpy(task.test.labels)
    samples = sample(checkpoint.model, checkpoint.networks, 300, 1, labels=labels)
    assert metrics["test/brightness"] == pytest.approx(float(samples.mean()))
    assert "test/nothing" not in metrics
    unlabelled = evaluate_held_out(replace(task, num_classes=0), CPU).metrics
    assert "test/brightness" not in unlabelled


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    results = HeldOutResults({"test/fd/x/2k": 0.1}, {"collapsed": "True: …"}, {"nearest": b"png"})
    folder = tmp_path / "evaluations" / "one"
    with pytest.raises(FileNotFoundError):
        HeldOutResults.read(folder)
    results.write(folder)
    assert HeldOutResults.read(folder) == results
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["nearest.png", "results.json"]


def test_two_workers_return_what_one_process_does(
    digits: Dataset, store: Store, tmp_path: Path
) -> None:
    checkpoint = untrained("vae", digits.spec, tmp_path / "model")
    config = HeldOutConfig(num=1200, importance_samples=5, images=50)
    task = make_task(config, checkpoint, digits, store, "pca")
    first, second = evaluate_in_two_processes(task, tmp_path)
    assert first == second
    alone = evaluate_held_out(task, CPU)
    assert first.tags == alone.tags and first.pictures == alone.pictures
    assert first.metrics.keys() == alone.metrics.keys()
    assert {
        "test/fd/pca-digits/1200",
        "test/kd/pca-digits/1200",
        "test/nll/iw5/50",
    } <= first.metrics.keys()
    for name, value in alone.metrics.items():
        assert first.metrics[name] == pytest.approx(value, rel=1e-5), name


# -- collapse -----------------------------------------------------------------------------------
def by_class(images: torch.Tensor, labels: torch.Tensor, counts: list[int]) -> torch.Tensor:
    """Return so many images of each class, repeated where there are fewer."""
    rows = [torch.nonzero(labels == label).flatten() for label in range(len(counts))]
    taken = [own.repeat(-(-num // len(own)))[:num] for own, num in zip(rows, counts, strict=True)]
    return images[torch.cat(taken)]


def test_collapse_is_told_by_class_shares_and_spread(digits: Dataset, store: Store) -> None:
    classifier = make_mode_classifier(digits, store)
    assert classifier and digits.train_labels is not None
    labels = torch.from_numpy(digits.train_labels)
    images = unit(torch.from_numpy(digits.train))
    sound = classifier.modes(images)
    assert not sound.collapsed and sound.lost == 0 and sound.spread > 0.7
    mostly_one = classifier.modes(by_class(images, labels, [2] * 9 + [982]))
    assert mostly_one.found == 10 and mostly_one.collapsed and mostly_one.lost == 9
    assert mostly_one.lost_share > 0.8 > 0.01 > mostly_one.lost_by_chance
    first = [images[int(torch.nonzero(labels == label)[0])] for label in range(10)]
    one_picture = classifier.modes(torch.stack(first).repeat(30, 1, 1, 1))
    assert one_picture.lost == 0 and one_picture.spread < 1e-3 and one_picture.collapsed
    one_of_them = by_class(images, labels, [30] * 10)
    one_of_them[30:60] = first[1]
    assert classifier.modes(one_of_them).collapsed
    text = str(mostly_one)
    assert text.startswith("9 of 10 modes lost, with ") and "spread within modes" in text


def test_a_class_without_data_is_no_mode(digits: Dataset, store: Store) -> None:
    """Labels that begin at 1."""
    assert digits.train_labels is not None and digits.validation_labels is not None
    assert digits.test_labels is not None
    shifted = replace(
        digits,
        name="shifted",
        num_classes=11,
        digest="shifted",
        train_labels=digits.train_labels + 1,
        validation_labels=digits.validation_labels + 1,
        test_labels=digits.test_labels + 1,
    )
    classifier = make_mode_classifier(shifted, store)
    assert classifier
    found = classifier.modes(unit(torch.from_numpy(shifted.train)))
    assert (found.found, found.num_modes, found.lost, found.collapsed) == (10, 10, 0, False)


# -- parts of the test split --------------------------------------------------------------------
def test_a_data_set_in_the_order_of_its_classes_is_sampled_fairly(
    digits: Dataset, store: Store, tmp_path: Path
) -> None:
    assert digits.test_labels is not None
    order = np.argsort(digits.test_labels, kind="stable")
    ordered = replace(digits, test=digits.test[order], test_labels=digits.test_labels[order])
    checkpoint = untrained("vae", digits.spec, tmp_path / "model", conditional=True)
    config = HeldOutConfig(num=50, importance_samples=2, images=50)
    task = make_task(config, checkpoint, ordered, store, "pca")
    assert task.test.labels is not None
    counts = np.bincount(task.test.labels[:50], minlength=10)
    share = 50 * np.bincount(ordered.test_labels, minlength=10) / len(ordered.test)
    assert np.abs(counts - share).max() <= 1.0
    # Features go with their images.
    space = task.extractor.space(torch.from_numpy(task.test.images), task.num_classes)
    features = space(unit(torch.from_numpy(task.test.images[:20])))
    np.testing.assert_allclose(task.test_features[:20], features, rtol=1e-5, atol=1e-5)
    again = make_task(config, checkpoint, ordered, store, "pca")
    assert np.array_equal(again.test.images, task.test.images)


def test_values_of_a_part_agree_with_the_whole_within_their_standard_errors(
    digits: Dataset, store: Store, tmp_path: Path
) -> None:
    checkpoint = untrained("vae", digits.spec, tmp_path / "model")

    def metrics(images: int) -> dict[str, float]:
        config = replace(SMALL, importance_samples=20, images=images)
        task = make_task(config, checkpoint, digits, store, "pca")
        return dict(evaluate_held_out(task, CPU).metrics)

    part, whole = metrics(60), metrics(len(digits.test))
    for name, end in (("nll", "iw20"), ("elbo", "mc20"), ("reconstruction", "mc20")):
        error = part[f"test/{name}_standard_error/{end}/60"]
        value, expected = part[f"test/{name}/{end}/60"], whole[f"test/{name}/{end}/299"]
        assert 0 < error < abs(expected) and abs(value - expected) < 3 * error, name
        smaller = whole[f"test/{name}_standard_error/{end}/299"]
        assert smaller == pytest.approx(error * (60 / 299) ** 0.5, rel=0.35), name
    assert part["test/precision_standard_error/pca-digits/299"] <= 0.5 / 299**0.5


def test_fewer_test_images_than_a_metric_needs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "few.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (45, 8, 8), np.uint8)
    np.savez(path, images=pixels[:40], test_images=pixels[40:])
    few = load(f"npz:{path}", tmp_path)
    checkpoint = untrained("vae", few.spec, tmp_path / "model")
    message = "with 5': expected a data set of at least 6 test images, for precision and recall"
    with pytest.raises(InputError, match=message):
        make_task(SMALL, checkpoint, few, Store.at(tmp_path / "store"))
    np.savez(path, images=pixels[:39], test_images=pixels[39:])
    enough = load(f"npz:{path}", tmp_path)
    task = make_task(replace(SMALL, num=6), checkpoint, enough, Store.at(tmp_path / "store"))
    found = evaluate_held_out(task, CPU).metrics
    assert {"test/fd/pca-npz-few/6", "test/precision/pca-npz-few/6"} <= found.keys()
