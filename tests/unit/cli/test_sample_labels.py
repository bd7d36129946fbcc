"""`genpipe sample --labels`: images of the classes that are asked for, of a checkpoint's model."""

from pathlib import Path

import numpy as np
import pytest
from support.models import VARIANTS, make_learner

from gen_models import save_checkpoint
from pipelines.cli.main import main


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """A folder with a checkpoint of a class-conditional GAN and one of another."""
    for variant in ("gan-conditional-mlp", "gan-mlp"):
        family, _ = VARIANTS[variant]
        learner = make_learner(variant)
        (tmp_path / variant).mkdir()
        save_checkpoint(tmp_path / variant, family, learner.optim, learner)
    return tmp_path


def test_images_are_of_the_classes_asked_for_in_turn(checkpoints: Path) -> None:
    model, out = str(checkpoints / "gan-conditional-mlp"), checkpoints / "samples.npz"
    arrays = []
    for labels in ([], ["7"], [str(label) for label in range(10)]):
        args = ["sample", model, "--num", "20", "--out", str(out)]
        assert main([*args, *(["--labels", *labels] if labels else [])]) == 0
        arrays.append(np.load(out)["images"])
    assert np.array_equal(arrays[0], arrays[2]) and not np.array_equal(arrays[0], arrays[1])


def test_labels_that_the_model_does_not_have_are_refused(
    checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(checkpoints / "samples.npz")
    conditional, other = (str(checkpoints / name) for name in ("gan-conditional-mlp", "gan-mlp"))
    assert main(["sample", conditional, "--labels", "3", "10", "--out", out]) == 2
    assert "labels = (3, 10): expected 0 to 9" in capsys.readouterr().err
    assert main(["sample", other, "--labels", "3", "--out", out]) == 2
    assert "labels = (3,): expected none" in capsys.readouterr().err
