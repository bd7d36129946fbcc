"""How fast the likelihood of images is bounded with 5,000 importance samples, against pythae.

The default VAE, briefly trained on binarised MNIST, then judged on test images: by
`gen_models.metrics`, in fp32 and with its networks' products in bf16, and by pythae's `get_nll`
on the same weights. One process each and the same number of threads. pythae is slow, so it is
timed on fewer images: what is compared is seconds an image.

    python -m benchmarks.likelihood_throughput --data-root DIR

Contestants take turns, `--repeats` times; figures are medians.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
import tyro
from torch import Tensor, nn

import gen_models
from benchmarks.figures import DATA_ROOT, ROOT, finish, medians, run_python, say, scratch, setting
from gen_models import Batch, Learner, Model, TrainingImages
from gen_models.core.data import unit
from gen_models.metrics import estimate_likelihood
from gen_models.training.cpu import prepare_thread
from gen_models.training.precision import Precision
from pipelines.data import Dataset, load


@dataclass(frozen=True)
class Options:
    """Compare the speed of a likelihood's bound."""

    images: int = 1_000
    """Test images that genpipe is timed on."""
    rival_images: int = 20
    """The first of them, which pythae is timed on."""
    samples: int = 5_000
    """Importance samples for each image."""
    epochs: int = 5
    """Epochs of 50,000 images that the model is trained for."""
    threads: int = 1
    """Threads of each contestant."""
    repeats: int = 3
    """Runs of each, in turn; the figures are of their medians."""
    bench_python: Path = ROOT / ".venv-bench" / "bin" / "python"
    """The Python that has pythae: see benchmarks/requirements.txt."""
    data_root: Path = DATA_ROOT
    """Where torchvision's MNIST lies; the environment's GENPIPE_DATA_ROOT is the default."""


def main() -> None:
    options = tyro.cli(Options, description=__doc__, args=sys.argv[1:])
    found = setting(options)
    if not options.bench_python.is_file():
        raise SystemExit(f"bench_python = '{options.bench_python}': expected a Python with pythae")
    torch.set_num_threads(options.threads)
    prepare_thread()
    data = load("mnist", options.data_root).with_binary_evaluation()
    model, networks = _trained(data, options)
    images = unit(torch.from_numpy(data.test[: options.images]))
    with scratch() as folder:
        content = folder / "content.pt"
        torch.save(_for_pythae(networks, images[: options.rival_images]), content)
        runs = [
            _measure(options, model, networks, images, content) for _ in range(options.repeats)
        ]
    finish("likelihood_throughput", _figures(medians(runs)), found)


def _trained(data: Dataset, options: Options) -> tuple[Model, dict[str, nn.Module]]:
    """The default VAE and its networks, in evaluation mode."""
    family = gen_models.family("vae")
    train = Batch.of(torch.from_numpy(data.train))
    training = TrainingImages(train, 128, drop_last=True, binarise=True)
    model: Model = family.Model(family.Config(), data.spec)
    learner = Learner(model, family.Optim(), seed=0, steps_per_epoch=training.steps_per_epoch)
    for epoch in range(1, options.epochs + 1):
        for batch, share in training.batches(0, epoch):
            learner.step(batch, share)
    return model, learner.sampling_networks()


def _for_pythae(networks: Mapping[str, nn.Module], images: Tensor) -> dict[str, Tensor]:
    """What `benchmarks.baselines.pythae_nll` reads: there the means come before the variances."""
    encoder, decoder = (
        [layer for layer in networks[name].modules() if isinstance(layer, nn.Linear)]
        for name in ("encoder", "decoder")
    )
    content = {"images": images.flatten(1)}
    for name in ("weight", "bias"):
        taking_turns = getattr(encoder[1], name)
        content |= {
            f"encoder.hidden.0.{name}": getattr(encoder[0], name),
            f"encoder.out.{name}": torch.cat([taking_turns[::2], taking_turns[1::2]]),
            f"decoder.layers.0.{name}": getattr(decoder[0], name),
            f"decoder.layers.2.{name}": getattr(decoder[1], name),
        }
    return {name: value.detach() for name, value in content.items()}


def _measure(
    options: Options,
    model: Model,
    networks: Mapping[str, nn.Module],
    images: Tensor,
    content: Path,
) -> dict[str, float]:
    """Seconds an image and nats of each contestant, once."""
    found: dict[str, float] = {}
    for precision in get_args(Precision):
        _ours(options, model, networks, images[:1], precision)  # warms up
        start = time.perf_counter()
        found[f"nll_{precision}"] = _ours(options, model, networks, images, precision)
        found[f"seconds_an_image_{precision}"] = (time.perf_counter() - start) / len(images)
    words = [f"--content={content}", f"--samples={options.samples}"]
    args = ["-m", "benchmarks.baselines.pythae_nll", *words]
    python = options.bench_python.absolute()
    theirs, _ = run_python(args, python=python, threads=options.threads)
    few = images[: options.rival_images]
    found["nll_few_fp32"] = _ours(options, model, networks, few, "fp32")
    found |= {"nll_few_pythae": theirs["nll"], "seconds_an_image_pythae": theirs["seconds"]}
    say(", ".join(f"{name} {value:.5g}" for name, value in found.items()))
    return found


def _ours(
    options: Options,
    model: Model,
    networks: Mapping[str, nn.Module],
    images: Tensor,
    precision: Precision,
) -> float:
    """The negative log likelihood, in nats."""
    return estimate_likelihood(
        model, networks, Batch.of(images), num_samples=options.samples, precision=precision
    ).nll


def _figures(found: Mapping[str, float]) -> dict[str, float]:
    theirs = found["seconds_an_image_pythae"]
    return {
        "over_pythae_get_nll": theirs / found["seconds_an_image_bf16"],
        "over_pythae_get_nll_fp32": theirs / found["seconds_an_image_fp32"],
        **found,
    }


if __name__ == "__main__":
    main()
