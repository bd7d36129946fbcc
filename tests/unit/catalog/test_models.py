"""Recorded models are loaded by every name, sampled, reconstructed and encoded."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.evaluation import untrained
from support.journals import open_journal
from support.models import SPEC, some_batch
from support.tracking import BACKEND, MemoryServer

import pipelines
from gen_models.core.checkpoint import Checkpoint, load_checkpoint
from gen_models.core.data import DataSpec
from gen_models.core.errors import InputError
from gen_models.core.sampling import sample as sample_images
from pipelines.catalog.models import LoadedModel, load, sample
from pipelines.store.journal import Outcome
from pipelines.store.layout import Store

URI = "memory://test"


@pytest.fixture
def checkpoint(store: Store) -> Checkpoint:
    """A VAE's checkpoint, in the run `a`."""
    return untrained("vae", SPEC, store.run("a").path / "best")


@pytest.fixture
def recorded(memory_server: MemoryServer, store: Store, checkpoint: Checkpoint) -> str:
    """The id of the run `a`, whose model is the champion."""
    journal = open_journal(store.run("a").path)
    claim = {"metric": "val/elbo", "mode": "max", "value": -1.0}
    folder = str(store.run("a").path / "best")
    journal.close(
        Outcome("completed", 0, checkpoint=folder, register="vae-digits", champion=claim)
    )
    BACKEND.writer(URI, store).deliver(journal)
    return memory_server.run("a").row.run_id


def test_a_model_is_loaded_by_every_name(
    recorded: str, store: Store, checkpoint: Checkpoint
) -> None:
    names = (recorded, "a", "vae-digits@champion", "models:/vae-digits/1")
    expected = sample_images(checkpoint.model, checkpoint.networks, 4, 0, torch.device("cpu"))
    for name in (*names, str(store.run("a").path / "best")):
        model = load(name, store=store.root, tracking_uri=URI)
        assert model.family == "vae" and torch.equal(model.sample(4), expected)
    with pytest.raises(InputError, match="model = 'b': expected a run's id or name"):
        load("b", store=store.root, tracking_uri=URI)
    assert pipelines.load is load and pipelines.LoadedModel is LoadedModel


def test_a_checkpoint_folder_needs_no_store(checkpoint: Checkpoint, store: Store) -> None:
    model = load(str(store.run("a").path / "best"), store="/nowhere")
    assert model.sample(2).shape == (2, 1, 8, 8)


def test_samples_follow_from_the_seed(checkpoint: Checkpoint) -> None:
    model = LoadedModel(checkpoint)
    images = model.sample(5)
    assert images.shape == (5, 1, 8, 8) and 0 <= images.min() <= images.max() <= 1
    assert torch.equal(images, model.sample(5, seed=0))
    assert not torch.equal(images, model.sample(5, seed=1))


def test_images_are_encoded_and_reconstructed(checkpoint: Checkpoint) -> None:
    model, images = LoadedModel(checkpoint), some_batch(3).images
    codes, again = model.encode(images), model.reconstruct(images)
    assert codes.shape == (3, 4) and again.shape == images.shape
    assert not codes.requires_grad and not again.requires_grad
    assert 0 <= again.min() <= again.max() <= 1
    for call in (model.encode, model.reconstruct):
        with pytest.raises(InputError, match=r"images = \(3, 1, 4, 4\): expected \(N, 1, 8, 8\)"):
            call(torch.zeros(3, 1, 4, 4))


def test_labels_are_used_by_a_class_conditional_model(tmp_path: Path) -> None:
    model = LoadedModel(untrained("vae", SPEC, tmp_path / "c", conditional=True))
    images, labels = some_batch(3)
    assert labels is not None
    assert not torch.equal(model.sample(4, labels=[1]), model.sample(4, labels=[2]))
    assert torch.equal(model.sample(10), model.sample(10, labels=range(10)))
    other = model.encode(images, (labels + 1) % 10)
    assert not torch.equal(model.encode(images, labels), other)
    with pytest.raises(InputError, match=r"labels = \(10,\): expected 0 to 9"):
        model.sample(4, labels=[10])


def test_what_a_model_cannot_do_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    gan = LoadedModel(untrained("gan", SPEC, tmp_path / "gan"))
    for call, verb in ((gan.encode, "encodes"), (gan.reconstruct, "reconstructs")):
        with pytest.raises(InputError, match=f"model = 'gan': expected a family that {verb}"):
            call(torch.zeros(1, 1, 8, 8))
    model = LoadedModel(checkpoint)
    with pytest.raises(InputError, match="num = 0: expected an integer of at least 1"):
        model.sample(0)
    with pytest.raises(InputError, match="seed = -1: expected an integer of at least 0"):
        model.sample(1, seed=-1)
    with pytest.raises(InputError, match=r"labels = \(3,\): expected none, because"):
        model.sample(1, labels=[3])


# -- files ---------------------------------------------------------------------------------------
def test_samples_are_written(recorded: str, store: Store, tmp_path: Path) -> None:
    out = tmp_path / "below/samples.npz"
    settings = {"store": store.root, "tracking_uri": URI}
    result = sample("a", num=7, seed=3, out=out, **settings)  # type: ignore[arg-type]
    assert (result.path, result.num, result.seed, result.family) == (str(out), 7, 3, "vae")
    array = np.load(out)["images"]
    assert array.shape == (7, 8, 8, 1) and array.dtype == np.uint8
    model = load("a", store=store.root, tracking_uri=URI)
    expected = (model.sample(7, seed=3) * 255).round().permute(0, 2, 3, 1).numpy()
    assert np.abs(array.astype(float) - expected).max() <= 1

    sample("a", num=4, out=tmp_path / "samples.png", **settings)  # type: ignore[arg-type]
    assert min(Image.open(tmp_path / "samples.png").size) >= 16


def test_points_are_written_as_numbers(tmp_path: Path) -> None:
    untrained("vae", DataSpec((2,), 8), tmp_path / "points", likelihood="gaussian")
    sample(str(tmp_path / "points"), num=5, out=tmp_path / "points.npz")
    array = np.load(tmp_path / "points.npz")["images"]
    assert array.shape == (5, 2) and array.dtype == np.float32


def test_files_that_cannot_be_written_are_refused(checkpoint: Checkpoint, store: Store) -> None:
    folder = str(store.run("a").path / "best")
    with pytest.raises(InputError, match=r"out = 'x\.gif': expected a file name ending in \.png"):
        sample(folder, out="x.gif")
    with pytest.raises(InputError, match=r"out = '/proc/x\.png': expected a file that can be"):
        sample(folder, num=1, out="/proc/x.png")


def test_a_loaded_model_is_on_its_device(store: Store, checkpoint: Checkpoint) -> None:
    model = LoadedModel(load_checkpoint(store.run("a").path / "best"), "cpu")
    assert model.device == torch.device("cpu") and set(model.networks) == {"encoder", "decoder"}
    assert all(not network.training for network in model.networks.values())
