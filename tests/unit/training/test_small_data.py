"""The fewest images that a data set may have: fewer are refused by name, before Ray starts, and
the fewest are trained on and validated."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import gen_models
from gen_models.core.errors import InputError
from pipelines.cli.parsing import parse_run
from pipelines.config.run import Train
from pipelines.training.loop import make_data, make_learner
from pipelines.training.payload import SharedDataset
from pipelines.training.preflight import RunContext, preflight

FEWEST = 14
"""Of which a sixth are test images, and a sixth of the rest, two, are validation images."""


def checked(folder: Path, family: str, num: int, *, labelled: bool) -> RunContext[Train]:
    """Return the checked config of a run on `num` images."""
    rng, path = np.random.default_rng(0), folder / "few.npz"
    arrays = {"images": rng.integers(0, 256, (num, 8, 8), np.uint8)}
    if labelled:
        arrays["labels"] = np.arange(num) % 3
    np.savez(path, **arrays)  # type: ignore[arg-type]
    args = [family, "--data", f"npz:{path}", "--batch-size", "4", "--store", str(folder / "runs")]
    run = parse_run(Train, "train", [*args, "--precision", "fp32"])
    assert run
    return preflight(run)


@pytest.mark.parametrize("family", gen_models.names())
@pytest.mark.parametrize("num", [12, 13])
def test_fewer_images_than_a_metric_needs_are_refused(
    num: int, family: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="at least 2 validation images, a sixth of the train"):
        checked(tmp_path, family, num, labelled=False)


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("family", gen_models.names())
def test_the_fewest_images_are_trained_on_and_validated(
    family: str, labelled: bool, tmp_path: Path
) -> None:
    context = checked(tmp_path, family, FEWEST, labelled=labelled)
    dataset, run = context.dataset, context.run
    parts = dataset.part("train"), dataset.part("validation")
    shared = SharedDataset(*parts, dataset.num_classes, context.extractor)
    data, evaluator = make_data(run, shared, torch.device("cpu"))
    learner = make_learner(run, data, dataset.num_classes)
    for batch, share in data.batches(0, 1):
        learner.step(batch, share)
    (metrics,) = evaluator.metrics([learner.model], [learner.sampling_networks()])
    assert math.isfinite(metrics[run.metric])
    assert learner.has_finite_parameters()
