"""Recorded models: load one, and sample from it."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gen_models.core.checkpoint import Checkpoint, load_checkpoint
from gen_models.core.contract import Encodes, Model, Reconstructs, is_conditional
from gen_models.core.data import Batch
from gen_models.core.errors import InputError, require
from gen_models.core.sampling import sample as sample_images
from pipelines.evaluation.images import drawing_of
from pipelines.report.results import SampleResult
from pipelines.store.checkpoints import is_checkpoint
from pipelines.store.files import LOCAL
from pipelines.store.layout import Store
from pipelines.tracking.base import RunReader, find_backend, recorded_uri
from pipelines.tracking.queue import warn_of_losses


class LoadedModel:
    """A trained model, ready to use on a device.

    >>> import genpipe
    >>> model = genpipe.load("vae-digits@champion", store="runs")
    >>> images = model.sample(64)             # (64, C, H, W) in [0, 1]
    >>> codes = model.encode(images)          # (64, latent_dim)
    >>> again = model.reconstruct(images)     # (64, C, H, W) in [0, 1]
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device | str = "cpu") -> None:
        self.family = checkpoint.family
        """The family's name."""
        self.model: Model = checkpoint.model
        """The family's `Model`, with its `config` and the data's `spec`."""
        self.device = torch.device(device)
        self.networks: dict[str, nn.Module] = {
            name: network.to(self.device) for name, network in checkpoint.networks.items()
        }
        """Networks by name, in evaluation mode, averaged if an average was kept."""
        self.seed, self.step_count = checkpoint.seed, checkpoint.step_count

    def sample(self, num: int, seed: int = 0, labels: Sequence[int] = ()) -> Tensor:
        """Return `num` samples (num, *shape) in [0, 1]; the same seed gives the same samples.

        `labels`: of a class-conditional model the classes of the samples, in turn; without them,
        each class in turn. Raises `InputError` at a label that the model does not have.
        """
        _check_request(num, seed)
        classes = self._check_labels(labels)
        return sample_images(self.model, self.networks, num, seed, self.device, classes)

    def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the model's version (N, *shape) of images (N, *shape) in [0, 1].

        Raises `InputError` if the family cannot reconstruct.
        """
        model = self.model
        if not isinstance(model, Reconstructs):
            raise InputError(f"model = {self.family!r}: expected a family that reconstructs")
        with torch.no_grad():
            return model.reconstruct(self.networks, self._batch(images, labels))

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the codes (N, latent_dim) of images (N, *shape) in [0, 1].

        Raises `InputError` if the family has no encoder.
        """
        model = self.model
        if not isinstance(model, Encodes):
            raise InputError(f"model = {self.family!r}: expected a family that encodes")
        with torch.no_grad():
            return model.encode(self.networks, self._batch(images, labels))

    def _batch(self, images: Tensor, labels: Tensor | None) -> Batch:
        shape = self.model.spec.shape
        expected = f"(N, {', '.join(map(str, shape))})"
        require(tuple(images.shape[1:]) == shape, "images", tuple(images.shape), expected)
        moved = None if labels is None else labels.to(self.device)
        return Batch.of(images.to(self.device), moved)

    def _check_labels(self, labels: Sequence[int]) -> Tensor | None:
        if not len(labels):
            return None
        given = tuple(int(label) for label in labels)
        conditional = is_conditional(self.model)
        require(conditional, "labels", given, "none, because the model is not class-conditional")
        most = self.model.spec.num_classes - 1
        require(0 <= min(given) <= max(given) <= most, "labels", given, f"0 to {most}")
        return torch.tensor(given, device=self.device)


def load(
    model: str,
    *,
    store: str | Path | None = None,
    tracking_uri: str | None = None,
    device: torch.device | str = "cpu",
) -> LoadedModel:
    """Load a recorded model.

    `model`: a run's id or name, `NAME@champion`, `models:/NAME/VERSION`, or a checkpoint folder.
    Raises `InputError` if there is no such model.

    >>> import genpipe
    >>> genpipe.load("vae-digits@champion", store="runs").sample(64).shape
    """
    if is_checkpoint(model):
        return LoadedModel(load_checkpoint(Path(model)), device)
    with reading(Store.at(store), tracking_uri) as reader:
        return LoadedModel(fetch_checkpoint(reader, model), device)


def sample(
    model: str,
    *,
    num: int = 64,
    seed: int = 0,
    labels: Sequence[int] = (),
    out: str | Path = "samples.png",
    store: str | Path | None = None,
    tracking_uri: str | None = None,
) -> SampleResult:
    """Write samples of a recorded model to a file: a picture (.png), or an .npz archive with
    `images`, uint8 (N, H, W, C), of points float32 (N, 2).

    Raises `InputError` if there is no such model, or if the file cannot be written.

    >>> import genpipe
    >>> genpipe.sample("vae-digits@champion", num=100, out="samples.npz", store="runs").path
    """
    path = Path(out)
    _check_request(num, seed)  # before the model is looked up
    named = path.suffix in _WRITERS
    require(named, "out", str(out), "a file name ending in .png or .npz")
    loaded = load(model, store=store, tracking_uri=tracking_uri)
    content = _WRITERS[path.suffix](loaded.model, loaded.sample(num, seed, labels))
    try:
        LOCAL.write(path, content)
    except OSError as error:
        expected = "expected a file that can be written"
        raise InputError(f"out = {str(path)!r}: {expected}: {error}") from error
    return SampleResult(path=str(path.absolute()), num=num, seed=seed, family=loaded.family)


@contextmanager
def reading(store: Store, tracking_uri: str | None = None) -> Iterator[RunReader]:
    """Give a reader of what is recorded. Raises `InputError` if nothing is recorded there."""
    uri = recorded_uri(store, tracking_uri)
    backend = find_backend(uri)
    with backend.settings():
        warn_of_losses(store, uri, backend)
        yield backend.reader(uri, store)


def fetch_checkpoint(reader: RunReader, model: str) -> Checkpoint:
    """Load the checkpoint that `model` means; download it if it is not on this machine."""
    with tempfile.TemporaryDirectory() as fetched:
        return load_checkpoint(reader.checkpoint(model, Path(fetched)))


def _check_request(num: int, seed: int) -> None:
    """Raise `InputError` unless `num` samples can be drawn with `seed`."""
    require(num >= 1, "num", num, "an integer of at least 1")
    require(seed >= 0, "seed", seed, "an integer of at least 0")


def _png(model: Model, samples: Tensor) -> bytes:
    return drawing_of(model).samples(samples)


def _npz(model: Model, samples: Tensor) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, images=drawing_of(model).array(samples))
    return out.getvalue()


_WRITERS: dict[str, Callable[[Model, Tensor], bytes]] = {".png": _png, ".npz": _npz}
"""Encodes samples by the suffix of the file."""
