"""pythae's `get_nll`, with its default batch size, on weights that are given to it.

Needs the environment of `benchmarks/requirements.txt`.

    python -m benchmarks.baselines.pythae_nll --content content.pt --samples 5000
"""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from pythae.models import VAE, VAEConfig
from torch import Tensor

from benchmarks.baselines.pythae_vae import Decoder, Encoder
from benchmarks.baselines.request import answer


def measure(content: dict[str, Tensor], num_samples: int) -> tuple[float, float]:
    """Seconds an image and the mean negative log likelihood, in nats.

    `content`: `images` (N, values) of 0 and 1, and the networks' tensors by name.
    """
    images = content.pop("images")
    features, latent_dim = images.shape[1], len(content["encoder.out.bias"]) // 2
    sizes = {"input_dim": (features,), "latent_dim": latent_dim}
    encoder, decoder = Encoder(latent_dim, features), Decoder(latent_dim, features)
    model = VAE(VAEConfig(**sizes, reconstruction_loss="bce"), encoder, decoder).eval()
    model.load_state_dict(content)
    with torch.no_grad():
        model.get_nll(images[:1], n_samples=num_samples)  # warms up
        start = time.perf_counter()
        log_likelihood = model.get_nll(images, n_samples=num_samples)
    return (time.perf_counter() - start) / len(images), -float(log_likelihood)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--content", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=5000)
    args = parser.parse_args()
    seconds, nll = measure(torch.load(args.content, weights_only=True), args.samples)
    answer({"seconds": seconds, "nll": nll})


if __name__ == "__main__":
    main()
