"""Class-conditional models: told a class, they make images of it, and nothing else changes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import (
    VARIANTS,
    make_evaluator,
    make_learner,
    make_model,
    make_networks,
    needs,
    on_device,
    some_batch,
)
from torch import Tensor

import gen_models
from gen_models.core import Batch, DataSpec, InputError, Learner, TrainingImages
from gen_models.core.contract import Reconstructs, is_conditional
from gen_models.core.sampling import block_labels, sample
from pipelines.data import load
from pipelines.data.dataset import Part

CONDITIONAL = [variant for variant in VARIANTS if is_conditional(make_model(variant))]


@torch.no_grad()
@pytest.mark.usefixtures("deterministic")
def test_the_class_matters_to_those_alone_that_are_told_it(
    variant: str, device: torch.device
) -> None:
    model = make_model(variant)
    networks, batch = make_networks(model, device), some_batch(5, device=device)
    noise = torch.randn(5, model.noise_dim, device=device)
    made = [model.generate(networks, noise, labels) for labels in (batch.labels, batch.labels + 1)]
    assert torch.equal(*made) is not is_conditional(model)
    if isinstance(model, Reconstructs):
        other = Batch(batch.images, batch.labels + 1)
        again = [model.reconstruct(networks, each) for each in (batch, other)]
        assert torch.equal(*again) is not is_conditional(model)


@pytest.mark.parametrize("arch", ["mlp", "conv"])
@torch.no_grad()
def test_the_discriminator_judges_an_image_as_one_of_its_class(
    arch: str, device: torch.device
) -> None:
    model = make_model(f"gan-conditional-{arch}", pac=2)
    networks = on_device(model.networks(), device)
    batch, draws = some_batch(4, device=device), model.draws(4, torch.Generator(device))
    found = [
        model.objectives()[0].loss(networks, Batch(batch.images, labels), draws, 0.0)[1]
        for labels in (batch.labels, batch.labels.roll(1))
    ]
    assert found[0]["score_real"] != found[1]["score_real"]


@pytest.mark.parametrize("variant", CONDITIONAL)
def test_without_classes_there_is_nothing_to_be_conditioned_on(variant: str) -> None:
    with pytest.raises(InputError, match="conditional = True: expected False, for the data have"):
        make_model(variant, DataSpec((1, 8, 8)))


def test_samples_are_of_the_classes_asked_for_in_turn(device: torch.device) -> None:
    labels = torch.tensor([3, 1, 4], device=device)
    assert block_labels(labels, 0)[:7].tolist() == [3, 1, 4, 3, 1, 4, 3]
    assert block_labels(labels, 1)[:4].tolist() == labels[(256 + torch.arange(4)) % 3].tolist()


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


@needs("sklearn")
@pytest.mark.parametrize(("family", "epochs"), [("vae", 30), ("gan", 60)])
def test_digits_are_of_the_class_that_was_asked_for(
    family: str, epochs: int, device: torch.device
) -> None:
    dataset = load("digits", Path())
    train = as_batch(dataset.part("train"), device)
    data = TrainingImages(train, 32, drop_last=True)
    module = gen_models.family(family)
    settings: dict[str, Any] = {"arch": "mlp", "hidden": (128,), "latent_dim": 8}
    model = module.Model(module.Config(**settings, conditional=True), dataset.spec)
    steps = data.steps_per_epoch
    learner = Learner(model, module.Optim(), seed=0, steps_per_epoch=steps, device=device)
    for epoch in range(1, epochs + 1):
        for batch, _ in data.batches(0, epoch):
            learner.step(batch)
    made = sample(model, learner.sampling_networks(), 500, 0, device)
    assert share_right(made, torch.arange(500, device=device) % 10, train) > 0.8


def as_batch(part: Part, device: torch.device) -> Batch:
    images, labels = (torch.from_numpy(array).to(device) for array in part)
    return Batch(images, labels)


def share_right(images: Tensor, labels: Tensor, train: Batch) -> float:
    """The share of images whose nearest class mean is that of their label."""
    means = [train.images[train.labels == c].float().mean(0) / 255 for c in range(10)]
    nearest = torch.cdist(images.flatten(1), torch.stack(means).flatten(1)).argmin(1)
    return float((nearest == labels).float().mean())


def test_the_command_line_asks_for_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from gen_models.core import save_checkpoint
    from pipelines.catalog.runs import sample_model
    from pipelines.cli.main import main
    from pipelines.config.requests import Sample

    for variant in ("gan-conditional-mlp", "gan-mlp"):
        family, _ = VARIANTS[variant]
        optim = gen_models.family(family).Optim()
        learner = make_learner(variant)
        (tmp_path / variant).mkdir()
        save_checkpoint(tmp_path / variant, family, optim, learner)
    told, other = str(tmp_path / "gan-conditional-mlp"), str(tmp_path / "gan-mlp")
    out = tmp_path / "samples.npz"
    arrays = []
    for labels in ((), (7,), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)):
        sample_model(Sample(model=told, num=20, labels=labels, out=out))
        arrays.append(np.load(out)["images"])
    assert np.array_equal(arrays[0], arrays[2]) and not np.array_equal(arrays[0], arrays[1])
    assert main(["sample", told, "--labels", "3", "10", "--out", str(out)]) == 2
    assert "labels = (3, 10): expected 0 to 9" in capsys.readouterr().err
    assert main(["sample", other, "--labels", "3", "--out", str(out)]) == 2
    assert "labels = (3,): expected none, for the model is not" in capsys.readouterr().err
