"""The feature space of the FID (Heusel et al. 2017): pool features of the Inception network with
the weights of its TensorFlow release, by torch-fidelity, which agrees with the original code.
torch-fidelity is optional, and imported when it is first needed.
"""

from __future__ import annotations

import io
import pickle  # nosec B403  # for its error alone
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from gen_models.core.errors import InputError

_LAYER = "2048"
_BLOCK = 50
"""Most images of 299 x 299 in memory at once."""


class Inception(nn.Module):
    """Maps images of one channel or three, of any size, to 2,048 pool features in float32.

    The network scales images to 299 x 299 as TensorFlow 1 did. It has no gradients.
    """

    def __init__(self, name: str, weights: Mapping[str, Tensor]) -> None:
        """`weights`: as `load_weights` returns them."""
        # light: torch-fidelity is optional
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        super().__init__()
        self.name = name
        file = io.BytesIO()  # the network reads its weights from a file
        torch.save(dict(weights), file)
        file.seek(0)
        self.network = FeatureExtractorInceptionV3(name, [_LAYER], file)

    def forward(self, images: Tensor) -> Tensor:
        """Map (…, C, H, W) in [0, 1] to (…, 2048); nan for an image that is not finite."""
        flat = images.flatten(0, -4)
        features = torch.cat([self._pooled(part) for part in torch.split(flat, _BLOCK)])
        return features.view(*images.shape[:-3], -1)

    def _pooled(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, 2048). The network takes uint8, and grey images as three equal
        channels, as they are read from image files."""
        finite = torch.isfinite(images).flatten(1).all(1, keepdim=True)
        pixels = images.nan_to_num().mul(255.0).round().clamp(0.0, 255.0).to(torch.uint8)
        (features,) = self.network(pixels.expand(-1, 3, -1, -1))
        return torch.where(finite, features, torch.nan)


def weights_file() -> Path:
    """Return where torch-fidelity keeps the weights: in torch.hub's folder, which TORCH_HOME sets.

    Raises `InputError` if torch-fidelity is not installed.
    """
    return Path(torch.hub.get_dir()) / "checkpoints" / _url().rpartition("/")[2]


def require_weights(download: bool) -> None:
    """Raise `InputError` unless the weights are on disk or may be downloaded."""
    path = weights_file()
    if not (download or path.is_file()):
        raise InputError(
            f"features = 'inception': expected the network's weights in {path}; "
            "--download gets them (91 MiB)"
        )


def load_weights(download: bool) -> dict[str, Tensor]:
    """Load the weights by name; download them from torch-fidelity's release if they are not on
    disk and `download` allows it.

    Raises `InputError` if they cannot be downloaded or read.
    """
    require_weights(download)
    path = weights_file()
    try:
        weights: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
            _url(), map_location="cpu", check_hash=True, weights_only=True
        )
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise InputError(
            f"features = 'inception': expected the network's weights in {path}: {error}"
        ) from error
    return weights


def _url() -> str:
    if find_spec("torch_fidelity") is None:
        raise InputError(
            "features = 'inception': expected torch-fidelity to be installed: "
            "pip install 'genpipe[inception]'"
        )
    # light: torch-fidelity is optional
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    url: str = URL_INCEPTION_V3
    return url
