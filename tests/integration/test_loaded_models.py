"""A model computes the same numbers on one machine, whether a learner holds it or it is loaded
from disk, from MLflow or from an export, whatever instructions the processor has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.models import VARIANTS

pytestmark = [pytest.mark.slow, pytest.mark.long]

PROCESSORS = {
    "this one": {},
    "with AVX2 alone": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "without AVX": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}
"""What makes torch and its libraries use fewer instructions than the processor has."""
WAYS = ("disk", "sampler", "mlflow", "exported", "pyfunc")
TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_loaded_model_computes_what_the_learner_s_does(
    processor: str, mlflow_database: Path, tmp_path: Path
) -> None:
    """With AVX2 alone, a convolution in another memory format has other last bits."""
    shutil.copy(mlflow_database, tmp_path / "mlflow.db")
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    done = subprocess.run(
        [sys.executable, "-m", "support.loaded_models", str(tmp_path), *VARIANTS],
        env={**os.environ, **PROCESSORS[processor], "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    wanted = PROCESSORS[processor].get("ATEN_CPU_CAPABILITY", "").upper()
    assert wanted in done.stdout
    for variant in VARIANTS:
        held = np.load(tmp_path / f"{variant}-held.npy")
        assert held.std() > 0
        for way in WAYS:
            found = np.load(tmp_path / f"{variant}-{way}.npy")
            assert np.array_equal(found, held), f"{variant} from {way}"
