"""Class-conditional models generate images of the class that is asked for."""

from typing import Any

import pytest
import torch
from support.models import (
    make_model,
    needs,
    some_batch,
)
from torch import Tensor

import gen_models
from gen_models import Adam, Batch, DataSpec, Learner, TrainingImages
from gen_models.core.networks import build_networks
from gen_models.core.sampling import block_labels, sample


@pytest.mark.parametrize("arch", ["mlp", "conv"])
@torch.no_grad()
def test_the_discriminator_judges_an_image_as_one_of_its_class(
    arch: str, device: torch.device
) -> None:
    model = make_model(f"gan-conditional-{arch}", pac=2)
    networks = build_networks(model, device)
    batch, draws = some_batch(4, device=device), model.draws(4, torch.Generator(device))
    found = [
        model.objectives()[0].loss(networks, Batch(batch.images, labels), draws, 0.0)[1]
        for labels in (batch.labels, batch.labels.roll(1))
    ]
    assert found[0]["score_real"] != found[1]["score_real"]


def test_samples_are_of_the_classes_asked_for_in_turn(device: torch.device) -> None:
    labels = torch.tensor([3, 1, 4], device=device)
    assert block_labels(labels, 0)[:7].tolist() == [3, 1, 4, 3, 1, 4, 3]
    assert block_labels(labels, 1)[:4].tolist() == labels[(256 + torch.arange(4)) % 3].tolist()


@needs("sklearn")
@pytest.mark.parametrize("family", ["vae", "gan"])
def test_digits_are_of_the_class_that_was_asked_for(family: str, device: torch.device) -> None:
    train = digits(device)
    data = TrainingImages(train, 32, drop_last=True)
    module = gen_models.family(family)
    settings: dict[str, Any] = {"arch": "mlp", "hidden": (128,), "latent_dim": 8}
    model = module.Model(module.Config(**settings, conditional=True), DataSpec((1, 8, 8), 10))
    adam = Adam(lr=2e-3, betas=(0.0, 0.9), ema_decay=0.99)  # ten times a GAN's default rate
    optim = module.Optim(adam, adam) if family == "gan" else module.Optim(lr=2e-3)
    steps = data.steps_per_epoch
    learner = Learner(model, optim, seed=0, steps_per_epoch=steps, device=device)
    for epoch in range(1, 11):
        for batch, _ in data.batches(0, epoch):
            learner.step(batch)
    images = sample(model, learner.sampling_networks(), 500, 0, device)
    assert share_right(images, torch.arange(500, device=device) % 10, train) > 0.8


def digits(device: torch.device) -> Batch:
    """Return the digits that scikit-learn brings, uint8 (1437, 1, 8, 8)."""
    loaded = pytest.importorskip("sklearn.datasets").load_digits()
    images = torch.from_numpy(loaded.images[:1437] * (255 / 16)).round().to(torch.uint8)
    labels = torch.from_numpy(loaded.target[:1437])
    return Batch(images[:, None].to(device), labels.to(device))


def share_right(images: Tensor, labels: Tensor, train: Batch) -> float:
    """The share of images whose nearest class mean is that of their label."""
    means = [train.images[train.labels == c].float().mean(0) / 255 for c in range(10)]
    nearest = torch.cdist(images.flatten(1), torch.stack(means).flatten(1)).argmin(1)
    return float((nearest == labels).float().mean())
