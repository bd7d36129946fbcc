"""A family in a package of its own: installed beside genpipe, trained, searched and sampled."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from support.pipeline import ROOT, last_json

pytestmark = [pytest.mark.slow, pytest.mark.long]
SOURCE = ROOT / "tests" / "data" / "linear_models"
FAST = ["--batch-size", "256", "--precision", "fp32", "--features", "pca"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment of a process in which the package is installed, in a folder of its own."""
    folder = tmp_path_factory.mktemp("layer")
    source = shutil.copytree(SOURCE, folder / "source")  # the build writes beside its source
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    target = ["--no-deps", "--no-build-isolation", "--target", str(folder / "site")]
    subprocess.run([*pip, *target, str(source)], check=True)
    path = os.pathsep.join([str(folder / "site"), str(ROOT)])
    return {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": path}


def run(args: list[str], environment: Mapping[str, str], folder: Path) -> str:
    """Run a command in a folder; return what it prints."""
    command = [sys.executable, "-m", "pipelines", *args]
    ran = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    return ran.stdout


def test_the_family_is_listed_with_its_settings(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    assert "families: autoencoder, gan, linear, vae" in run(["--help"], environment, tmp_path)
    text = run(["search", "linear", "--help"], environment, tmp_path)
    assert "--model.code-weight" in text and "Weight of the codes' squared norm" in text


def test_the_family_is_trained_searched_and_sampled(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    train = ["train", "linear", "--epochs", "2", "--model.latent-dim", "3", *FAST, "--json"]
    trained = last_json(run(train, environment, tmp_path))
    assert trained["outcome"] == "completed" and trained["model"]["latent_dim"] == 3
    assert trained["metric"] == "val/squared_error"

    search = ["search", "linear", "--trials", "3", "--epochs", "2", *FAST, "--json"]
    searched = last_json(run(search, environment, tmp_path))
    assert searched["outcome"] == "completed" and len(searched["ranking"]) == 3
    assert set(searched["champion"]["config"]) == {"model.latent_dim", "optim.lr"}
    assert searched["champion"]["version"] == "1"

    sample = ["sample", "linear-digits@champion", "--num", "7", "--out", "samples.npz"]
    run(sample, environment, tmp_path)
    images = np.load(tmp_path / "samples.npz")["images"]
    assert images.shape == (7, 8, 8, 1) and images.std() > 5


def test_the_family_passes_the_conformance_suite(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    suite = shutil.copy(SOURCE / "suite.py", tmp_path / "test_linear.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(suite)]
    ran = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
    counts = ran.stdout.splitlines()[-1]
    assert "passed" in counts and "failed" not in counts
    assert int(counts.split()[0]) >= 20, counts
