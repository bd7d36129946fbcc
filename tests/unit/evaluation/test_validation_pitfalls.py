"""Common mistakes in the validation of generative models, each with the test that would notice it;
for every family in every architecture."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch
from support.evaluation import make_evaluator
from support.models import (
    FAMILIES,
    make_learner,
    make_model,
    make_networks,
    needs,
    skip_if_unfittable,
    some_batch,
    some_pixels,
)
from support.validation_workers import validate_as_worker, validate_variants
from torch import Tensor

import tune_spaces
from gen_models import Batch
from gen_models.core.contract import Draws, Networks, Objective
from gen_models.core.data import unit
from gen_models.core.sampling import sample
from gen_models.metrics import Moments, frechet_distance
from gen_models.testing.workers import run_workers
from pipelines.data import load
from pipelines.data.batches import as_batch
from pipelines.evaluation.metric_names import frechet_name, matching
from pipelines.evaluation.validation import Evaluator, metric_names


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


@pytest.mark.parametrize("family", FAMILIES)
def test_the_ranking_metric_depends_on_searched_settings_through_the_networks_alone(
    family: str,
) -> None:
    """A training loss that holds a searched weight ranks the smallest weight best; a GAN's losses
    depend on its adversary. Both change here, while the generative networks stay."""
    space, data = tune_spaces.space(family), some_pixels(300)
    learner = make_learner(f"{family}-mlp")
    skip_if_unfittable(learner.model)
    networks = learner.sampling_networks()
    weights = _searched_weights(learner.model.config, space.domains["model"])
    other_model = make_model(f"{family}-mlp", **weights)
    other_networks = dict(networks)
    if family == "gan":
        other_networks["discriminator"] = make_networks(other_model)["discriminator"]
    assert weights or family == "gan"

    batch = Batch(unit(data.images), data.labels)
    losses, ranked = [], []
    for model, own in ((learner.model, networks), (other_model, other_networks)):
        draws = model.draws(data.num, torch.Generator().manual_seed(0))
        losses.append([_loss(o, own, batch, draws) for o in model.objectives()])
        (found,) = make_evaluator(data, data).metrics([model], [own])
        (name,) = matching(space.metric, found)
        ranked.append(found[name])
    assert all(a != b for a, b in zip(*losses, strict=True))
    assert name.startswith("val/") and ranked[0] == ranked[1]


def _loss(objective: Objective, networks: Networks, batch: Batch, draws: Draws) -> float:
    return float(objective.loss(networks, batch, draws, 1.0)[0].detach())


def _searched_weights(config: Any, domains: Mapping[str, Any]) -> dict[str, float]:
    """Return another value of each number of the config that is searched."""
    hints = get_type_hints(type(config))
    return {name: getattr(config, name) + 0.3 for name in domains if hints[name] is float}


def test_data_of_the_pipeline_are_what_the_evaluator_is_given() -> None:
    """Labels follow their images through splitting, memory and blocks."""
    dataset = load("digits", Path())
    batch = as_batch(dataset.part("validation"))
    assert dataset.validation_labels is not None
    assert batch.labels.tolist() == dataset.validation_labels.tolist()
    assert batch.images.dtype == torch.uint8 and batch.num == len(dataset.validation)


@pytest.mark.usefixtures("deterministic")
def test_validation_reports_what_it_says_and_the_same_twice(
    variant: str, device: torch.device
) -> None:
    learner, pixels = make_learner(variant, device=device), some_pixels(90, device)
    skip_if_unfittable(learner.model)
    evaluator = make_evaluator(pixels, pixels)
    (found,) = evaluator.metrics([learner.model], [learner.sampling_networks()])
    assert sorted(found) == sorted(metric_names(learner.model, "pca"))
    assert evaluator.metrics([learner.model], [learner.sampling_networks()]) == [found]


def test_several_models_at_once_have_the_metrics_of_each_alone(
    variant: str, device: torch.device
) -> None:
    pixels = some_pixels(300, device)
    learners = [
        make_learner(variant, seed=seed, device=device, latent_dim=4 + 2 * seed)
        for seed in range(3)
    ]
    models = [learner.model for learner in learners]
    skip_if_unfittable(models[0])
    evaluator = make_evaluator(pixels, pixels.rows(slice(90)))
    networks = [learner.sampling_networks() for learner in learners]
    at_once = evaluator.metrics(models, networks)
    for model, own, found in zip(models, networks, at_once, strict=True):
        assert evaluator.metrics([model], [own])[0] == pytest.approx(found, rel=1e-4)
    assert at_once[0] != at_once[1]


@needs("sklearn")
def test_two_workers_validate_as_one_does(tmp_path: Path) -> None:
    run_workers(2, validate_as_worker, tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    alone = validate_variants()
    assert first == second and first.keys() == alone.keys()
    for variant, metrics in alone.items():
        assert first[variant] == pytest.approx(metrics, rel=1e-4), variant


def test_samples_are_compared_in_the_proportions_of_the_split(device: torch.device) -> None:
    """Were the classes of samples evenly mixed, or the validation split's order asked for, the
    distance would not be that of samples with the split's own labels."""
    model = make_model("gan-conditional-mlp")
    networks = make_networks(model, device)
    mixed = some_batch(300, device=device)
    found = []
    for labels in (torch.zeros_like(mixed.labels), mixed.labels):
        data = Batch(mixed.images, labels)
        evaluator = make_evaluator(data, data)
        found.append(evaluator.metrics([model], [networks])[0]["val/fd/pca/2k"])
    assert found[0] != found[1]
