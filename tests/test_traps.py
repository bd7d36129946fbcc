"""Mistakes that others made, each with the test that would notice it here."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import (
    make_evaluator,
    make_learner,
    needs,
    skip_if_unfittable,
    some_batch,
    some_pixels,
)
from torch import Tensor

from gen_models.core import DataSpec
from gen_models.core.data import unit
from gen_models.core.sampling import sample
from gen_models.metrics import Moments, frechet_distance
from pipelines.data import load
from pipelines.evaluation.metric_names import frechet_name
from pipelines.evaluation.validation import Evaluator


@needs("ray")
def test_a_metric_does_not_change_with_the_batch_size(tmp_path: Path) -> None:
    """It would, were it a mean of batch means, or were noise drawn batch by batch."""
    from pipelines.config.run import Train, defaults
    from pipelines.evaluation.feature_spaces import make_extractor
    from pipelines.store.layout import Store
    from pipelines.training.loop import make_data
    from pipelines.training.payload import Images

    dataset, found = load("digits", Path()), []
    space = make_extractor(dataset, Store.at(tmp_path), "pca")
    images = Images(dataset.part("train"), dataset.part("validation"), 10, space)
    for batch_size in (32, 100):
        run = replace(defaults(Train, "vae"), batch_size=batch_size)
        _, evaluator = make_data(run, images, torch.device("cpu"))
        learner = make_learner("vae-mlp")
        found += evaluator.metrics([learner.model], [learner.sampling_networks()])
    assert found[0] == found[1]


@needs("sklearn")
def test_a_mean_over_a_split_counts_every_image_once(device: torch.device) -> None:
    """The last block is smaller than the others, and counts for less."""
    learner = make_learner("autoencoder-mlp", device=device)
    data = some_pixels(750, device)  # blocks of 500 and 250
    evaluator = make_evaluator(data, data)
    networks = learner.sampling_networks()
    (found,) = evaluator.metrics([learner.model], [networks])
    images = unit(data.images)
    error = networks["decoder"](networks["encoder"](images)).sigmoid() - images
    expected = 0.5 * float(error.square().sum()) / 750
    assert found["val/squared_error"] == pytest.approx(expected, rel=1e-5)


def test_a_sample_does_not_depend_on_those_beside_it(variant: str, device: torch.device) -> None:
    """It does where batch norm is in training mode."""
    learner = make_learner(variant, device=device)
    for _ in range(3):
        learner.step(some_batch(16, device=device))
    networks = learner.sampling_networks()
    assert not any(m.training for network in networks.values() for m in network.modules())
    assert any(m.training for network in learner.networks.values() for m in network.modules())
    many, one = (sample(learner.model, networks, num, 0, device) for num in (20, 1))
    torch.testing.assert_close(one, many[:1])


class Pixels:
    """A feature space that refuses what does not lie in [0, 1]."""

    name = "pixels"

    def __call__(self, images: Tensor) -> Tensor:
        assert float(images.min()) >= 0.0 and float(images.max()) <= 1.0
        assert float(images.max()) > 0.1  # not divided by 255 twice
        return images.flatten(-3).double()


def test_real_and_generated_images_come_in_one_range(variant: str, device: torch.device) -> None:
    """Images in [-1, 1] against images in [0, 1], or in [0, 255], make a distance that falls with
    the mistake."""
    learner, data = make_learner(variant, device=device), some_pixels(64, device)
    skip_if_unfittable(learner.model)
    evaluator = Evaluator(data, data, Pixels())
    networks = learner.sampling_networks()
    (found,) = evaluator.metrics([learner.model], [networks])
    samples = sample(learner.model, networks, 2048, 0, device, data.labels)
    real = Moments.of(Pixels()(unit(data.images)))
    expected = frechet_distance(real, Moments.of(Pixels()(samples)))
    assert found[frechet_name("pixels")] == pytest.approx(float(expected), rel=1e-4)


@needs("ray")
@pytest.mark.parametrize("family", ["autoencoder", "vae", "gan"])
def test_trials_are_ranked_by_what_is_not_searched(family: str) -> None:
    """A training loss that holds a searched weight makes the smallest weight win."""
    from tune_spaces import space

    found = space(family)
    assert found.metric.startswith("val/")
    module_spec = DataSpec((1, 8, 8), 10)
    searched = {name for part in found.domains.values() for name in part}
    weights = {"kl_weight": 7.0, "noise_std": 0.3} if family != "gan" else {}
    values = []
    for changes in ({}, {k: v for k, v in weights.items() if k in searched}):
        learner = make_learner(f"{family}-mlp", spec=module_spec, **changes)
        data = some_pixels(64)
        evaluator = make_evaluator(data, data)
        values += evaluator.metrics([learner.model], [learner.sampling_networks()])
    assert values[0] == values[1]


def test_few_samples_make_a_frechet_distance_too_large() -> None:
    """Why `genpipe evaluate` warns below 2,048: the bias falls as one over the number."""
    generator = torch.Generator().manual_seed(0)
    real = Moments.of(torch.randn(20_000, 32, generator=generator))
    found = {
        num: float(frechet_distance(real, Moments.of(torch.randn(num, 32, generator=generator))))
        for num in (64, 256, 2048)
    }
    assert found[64] > 3 * found[256] > 9 * found[2048] > 0


@needs("ray")
def test_data_of_the_pipeline_are_what_the_evaluator_is_given() -> None:
    """Labels follow their images through splitting, memory and blocks."""
    from pipelines.data.batches import as_batch

    dataset = load("digits", Path())
    batch = as_batch(dataset.part("validation"))
    assert dataset.validation_labels is not None
    assert batch.labels.tolist() == dataset.validation_labels.tolist()
    assert batch.images.dtype == torch.uint8 and batch.num == len(dataset.validation)
