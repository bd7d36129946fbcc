"""Evaluation of untrained models on the test split, in this process and on two workers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.evaluation import evaluate_in_two_processes, untrained

from gen_models import Batch
from gen_models.core.data import unit
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
    assert 0.0 <= metrics["test/modes/ring8/1k"] < 8.0  # it is untrained
    assert 0.0 <= metrics["test/mode_share/ring8/1k"] < 0.5
    assert metrics["test/fd/pca-ring8/1k"] > 0.0
    assert results.tags == {"test/images": str(len(ring.test)), "collapsed": "True"}
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
    assert "test/modes/lenet-digits/300" in pca and "test/nll/iw5" in pca
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
    labels = torch.from_numpy(digits.test_labels).repeat(10)[:2000]
    classifier = make_mode_classifier(digits, store)
    assert classifier is not None
    samples = sample(checkpoint.model, checkpoint.networks, 2000, 1, labels=labels)
    expected = (classifier.assign(samples) == labels).double().mean()
    found = metrics["test/label_accuracy/lenet-digits/2k"]
    assert found == pytest.approx(float(expected))
    assert metrics["test/nll/iw5"] >= 0.0 and metrics["test/likelihood_images"] == 5.0


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
    assert cached[-1] == "test.safetensors"
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
    labels = torch.from_numpy(ring.test_labels)
    samples = sample(checkpoint.model, checkpoint.networks, 300, 1, labels=labels)
    assert metrics["test/brightness"] == pytest.approx(float(samples.mean()))
    assert "test/nothing" not in metrics
    unlabelled = evaluate_held_out(replace(task, num_classes=0), CPU).metrics
    assert "test/brightness" not in unlabelled


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    results = HeldOutResults({"test/fd/x/2k": 0.1}, {"collapsed": "True"}, {"nearest": b"png"})
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
        "test/fd/pca-digits/1k",
        "test/kd/pca-digits/1k",
        "test/nll/iw5",
    } <= first.metrics.keys()
    for name, value in alone.metrics.items():
        assert first.metrics[name] == pytest.approx(value, rel=1e-5), name
