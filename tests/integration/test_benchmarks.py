"""Benchmarks, run small: they print their figures. The GPU's ones run on a CPU, and count
operations and bytes right. No test is about the size of a measured figure."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import needs

pytestmark = [pytest.mark.slow, pytest.mark.long, needs("tyro")]

STEPS = ("--device", "cpu", "--steps", "1", "--repeats", "1")


def run(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str
) -> dict[str, Any]:
    """The figures that a benchmark prints."""
    monkeypatch.setattr(sys, "argv", [name, *args])
    importlib.import_module(f"benchmarks.{name}").main()
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["benchmark"] == name
    return found["figures"]  # type: ignore[no-any-return]


def test_many_members(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    models = ("--models", "mlp_vae", "dcgan32", "--width", "4")
    members = ("--members", "2", "--ways", "vectorised")
    figures = run("fused_gpu", monkeypatch, capsys, *models, *members, *STEPS)
    for model in ("mlp_vae", "dcgan32"):
        rates = [figures[f"{model}_images_per_second_vectorised_{p}_k2"] for p in ("fp32", "bf16")]
        eager = figures[f"{model}_images_per_second_eager"]
        assert figures[f"{model}_over_one_at_a_time"] == pytest.approx(max(rates) / eager)
        assert figures[f"{model}_of_floor"] > 0.0
    # Forwards and backwards through 784-512-32 and 16-512-784, but the images' gradient.
    products = 2 * 784 * 512 + 3 * (512 * 32 + 16 * 512 + 512 * 784)
    assert figures["mlp_vae_gflops_a_step"] == pytest.approx(2 * 128 * products / 1e9)
    parameters = 785 * 512 + 513 * 32 + 17 * 512 + 513 * 784
    assert figures["mlp_vae_mb_a_step"] == pytest.approx((24 * parameters + 128 * 784) / 1e6)


def test_one_learner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    which = ("--families", "vae", "--archs", "mlp", "--ways", "eager", "recorded")
    figures = run("train_gpu", monkeypatch, capsys, *which, *STEPS)
    rates = [v for k, v in figures.items() if "images_per_second" in k]
    assert len(rates) == 4
    eager = figures["vae_mlp_images_per_second_eager_fp32"]
    assert figures["vae_mlp_single_over_eager"] == pytest.approx(max(rates) / eager)


def test_metrics(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small = ("--num", "600", "--images", "2", "--samples", "50", "--repeats", "1")
    figures = run("metrics_gpu", monkeypatch, capsys, "--device", "cpu", *small)
    distances = sum(figures[f"seconds_{name}"] for name in ("frechet", "kernel", "prdc"))
    assert figures["metrics_seconds"] == pytest.approx(distances)
    assert figures["seconds_nll_bf16"] > 0.0


def test_a_search_is_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mnist_root: Path
) -> None:
    small = ("--trials", "2", "--images", "600", "--ways", "ours")
    figures = run("search_throughput", monkeypatch, capsys, *small, "--data-root", str(mnist_root))
    each = figures["seconds_a_trial_ours"]
    assert figures["trials_an_hour_ours"] == pytest.approx(3600 / each)


def test_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    figures = run("terminal", monkeypatch, capsys, "--runs", "3", "--repeats", "1")
    assert {"help_search_cpu", "mistyped_flag_seconds", "runs_where_seconds"} <= set(figures)
    assert all(0.0 < value < 60.0 for value in figures.values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="wants a CUDA device")
def test_branches_of_one_graph_are_the_steps() -> None:
    from benchmarks.contestants import Branches, contestants
    from gen_models.training.batches import Epochs

    contestant = contestants(8)["dcgan32"]
    data = contestant.images(torch.device("cuda"))
    alone, branches = ([contestant.learner(data, i) for i in range(3)] for _ in range(2))
    epochs = Epochs(data, [(one.seed, 1) for one in alone])
    together = Branches(branches)
    for step in range(4):
        batch, _ = epochs.batch(step)
        together.step(batch)
    del together
    for one in alone:
        for batch, share in list(data.batches(one.seed, 1))[:4]:
            one.step(batch, share)
    for one, other in zip(alone, branches, strict=True):
        assert other.pop_metrics() == pytest.approx(one.pop_metrics(), rel=0.02, abs=0.02)
