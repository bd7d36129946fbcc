"""Validation of a model of each family by several workers."""

import json
from pathlib import Path

from support.evaluation import make_evaluator
from support.models import make_learner, some_pixels

VARIANTS = ("autoencoder-mlp", "vae-mlp", "gan-conditional-mlp")


def validate_variants() -> dict[str, dict[str, float]]:
    """Return the validation metrics of an untrained model of each variant, by its name."""
    pixels = some_pixels(300)
    found = {}
    for variant in VARIANTS:
        learner = make_learner(variant)
        (metrics,) = make_evaluator(pixels, pixels).metrics(
            [learner.model], [learner.sampling_networks()]
        )
        found[variant] = metrics
    return found


def validate_as_worker(rank: int, folder: Path) -> None:
    """Write what `validate_variants` returns to `folder`."""
    (folder / f"{rank}.json").write_text(json.dumps(validate_variants()))
