"""Figures of a search's page: what is drawn, read back from the axes."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from support.journals import ELBO_MAX, FD, FD_MIN, METRIC, read_run, write_run

from pipelines.analysis.best_epoch import best_epoch
from pipelines.analysis.pareto import pareto_front
from pipelines.analysis.ranking import TrialResult
from pipelines.report import figures
from pipelines.report.figures import (
    COLOURED,
    Scale,
    against_settings,
    learning_curves,
    parallel_coordinates,
    pareto_diagram,
)


def trial(folder: Path, rank: int, config: dict[str, Any]) -> TrialResult:
    epochs = [{METRIC: -rank - 10.0 / epoch, FD: 50.0 - rank} for epoch in (1, 2, 3)]
    record = read_run(write_run(folder / f"t{rank}", epochs))
    assert record.outcome
    best = best_epoch(record, ELBO_MAX)
    return TrialResult(f"t{rank}", config, record.outcome, best, record)


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> list[TrialResult]:
    """Twelve trials, the best first."""
    folder = tmp_path_factory.mktemp("trials")
    return [
        trial(
            folder,
            rank,
            {
                "model.arch": ["mlp", "conv"][rank % 2],
                "optim.lr": 10.0 ** -(1 + rank % 4),
                "model.latent_dim": rank,
                "model.conditional": rank % 3 == 0,
            },
        )
        for rank in range(12)
    ]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is written as a picture."""
    seen: list[Figure] = []
    png = figures._png

    def keep(figure: Figure) -> bytes:
        seen.append(figure)
        return png(figure)

    monkeypatch.setattr(figures, "_png", keep)
    return seen


def size(png: bytes) -> tuple[int, int]:
    image = Image.open(io.BytesIO(png))
    image.load()
    assert image.format == "PNG"
    return image.size


def test_learning_curves_are_coloured_for_the_best(
    trials: list[TrialResult], drawn: list[Figure]
) -> None:
    size(learning_curves(trials, ELBO_MAX))
    (axes,) = drawn[0].axes
    assert axes.get_xlabel() == "epoch" and axes.get_ylabel() == f"{METRIC} (max)"
    assert len(axes.lines) == len(trials)
    assert sum(line.get_color() == "0.8" for line in axes.lines) == len(trials) - COLOURED
    legend = axes.get_legend()
    assert legend
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [f"{rank}: t{rank - 1}" for rank in range(1, COLOURED + 1)]
    best = axes.lines[-1]
    assert np.array_equal(best.get_xdata(), [1, 2, 3])
    assert np.allclose(best.get_ydata(), [-10.0, -5.0, -10.0 / 3.0])
    low, high = axes.get_ylim()
    assert low < -10.0 / 3.0 < high


def test_the_metric_is_drawn_against_each_setting(
    trials: list[TrialResult], drawn: list[Figure]
) -> None:
    size(against_settings(trials, ELBO_MAX))
    axes = drawn[0].axes
    assert [a.get_xlabel() for a in axes] == list(trials[0].config)
    arch, rate, latent, conditional = axes
    assert [text.get_text() for text in arch.get_xticklabels()] == ["conv", "mlp"]
    assert rate.get_xscale() == "log" and latent.get_xscale() == "linear"
    assert [text.get_text() for text in conditional.get_xticklabels()] == ["False", "True"]
    points = np.asarray(latent.collections[0].get_offsets())
    assert np.array_equal(points[:, 0], np.arange(12))
    low, high = latent.get_ylim()
    values = [t.best.value for t in trials if t.best]
    assert np.allclose(points[:, 1], np.clip(values, low, high))
    assert values[-1] < low < values[-2]  # the worst tenth lies at the edge
    assert high > values[0]


def test_parallel_coordinates_have_a_line_a_trial(
    trials: list[TrialResult], drawn: list[Figure]
) -> None:
    size(parallel_coordinates(trials, ELBO_MAX))
    (axes,) = drawn[0].axes
    names = [text.get_text() for text in axes.get_xticklabels()]
    assert names == [*trials[0].config, METRIC]
    lines = [line for line in axes.lines if len(np.asarray(line.get_xdata())) == len(names)]
    assert len(lines) == len(trials)
    heights = np.array([line.get_ydata() for line in lines])
    assert heights.min() == 0.0 and heights.max() == 1.0
    assert heights[-1][-1] == 1.0  # the best is drawn last, on top, and at the top


def test_the_front_is_drawn_with_ranks(trials: list[TrialResult], drawn: list[Figure]) -> None:
    objectives = [ELBO_MAX, FD_MIN]
    front = pareto_front(trials, objectives)
    assert len(front) == 12  # each trial is better than another in one of the two
    ranked = [(rank, result) for rank, result in enumerate(front, 1)]
    size(pareto_diagram(trials, ranked, objectives))
    (axes,) = drawn[0].axes
    assert axes.get_xlabel() == f"{METRIC} (higher is better)"
    assert axes.get_ylabel() == f"{FD} (lower is better)"
    assert [text.get_text() for text in axes.texts] == [str(rank) for rank in range(1, 13)]
    line = axes.lines[0]
    assert np.allclose(line.get_xdata(), [t.best.value for t in trials if t.best])
    assert np.allclose(line.get_ydata(), [50.0 - rank for rank in range(12)])


def test_trials_without_a_value_of_an_objective_are_left_out_of_the_diagram(
    trials: list[TrialResult], tmp_path: Path
) -> None:
    lacking = trial(tmp_path, 99, {})
    record = read_run(write_run(tmp_path / "lacking", [-1.0]))
    assert record.outcome
    lacking = TrialResult("x", {}, record.outcome, best_epoch(record, ELBO_MAX), record)
    front = [(1, trials[0])]
    assert size(pareto_diagram([*trials, lacking], front, [ELBO_MAX, FD_MIN])) > (100, 100)


def test_a_setting_that_spans_decades_is_logarithmic() -> None:
    assert Scale([1e-4, 1e-2]).positions([1e-3]).tolist() == pytest.approx([-3.0])
    assert not Scale([4, 32]).is_log and not Scale([0.0, 100.0]).is_log
    names = Scale(["mlp", "conv", "mlp"])
    assert names.names == ["conv", "mlp"] and names.positions(["mlp"]).tolist() == [1.0]
    assert not Scale([True, False]).is_number
