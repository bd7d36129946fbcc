"""The command line on a CUDA device."""

import math
from pathlib import Path

import pytest
import torch
from support.models import needs
from support.pipeline import client, run_process

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.slow
@needs("ray", "mlflow", "tyro", "sklearn")
def test_the_command_line_trains_on_the_gpu(tmp_path: Path) -> None:
    args = ["train", "vae", "--data", "digits", "--epochs", "3", "--batch-size", "64"]
    args += ["--device", "cuda", "--store", str(tmp_path / "runs")]
    result = run_process(args, tmp_path / "log")
    assert math.isfinite(result["value"]) and result["outcome"] == "completed"
    run = client(tmp_path / "runs").get_run(result["run_id"])
    assert run.data.params["device"] == "cuda"


@pytest.mark.slow
@needs("ray", "mlflow", "tyro", "sklearn")
def test_the_command_line_searches_on_the_gpu(tmp_path: Path) -> None:
    args = ["search", "vae", "--data", "digits", "--trials", "4", "--epochs", "3"]
    args += ["--grace-period", "1", "--device", "cuda", "--store", str(tmp_path / "runs")]
    result = run_process(args, tmp_path / "log")
    assert "each on a GPU" in (tmp_path / "log").read_text()
    assert len(result["ranking"]) == 4 and math.isfinite(result["champion"]["value"])
    assert "failed" not in {trial["outcome"] for trial in result["ranking"]}
    run = client(tmp_path / "runs").get_run(result["champion"]["run_id"])
    assert run.data.params["device"] == "cuda"
