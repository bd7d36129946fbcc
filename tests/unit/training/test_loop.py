"""The epoch loop with a real learner and evaluator, and outputs that are recorded."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.training import SmallData, small_data, small_run

from gen_models.training.learner import Learner
from pipelines.config.run import Train
from pipelines.evaluation.metric_names import BEST_CURVE
from pipelines.store.journal import Journal
from pipelines.training.loop import (
    EpochLoop,
    Metrics,
    TrialState,
    divergence,
    is_picture_epoch,
    make_learner,
    ray_report,
    repeated_report,
    write_epoch_record,
)

METRIC = "val/nll/iw8"


@dataclass
class RecordedOutputs:
    """Outputs that keep what they are given."""

    writes: bool = True
    pictures: bool = True
    saved: list[tuple[int, bool, dict[str, float]]] = field(default_factory=list)
    """Epoch, whether it diverged, report."""
    asked: list[int] = field(default_factory=list)
    """Epochs at which pictures were asked for."""

    def extra_metrics(self, trial: TrialState) -> Metrics:
        return {"config/optim.lr": 0.5}

    def draws_pictures(self, trial: TrialState, metrics: Metrics) -> bool:
        self.asked.append(trial.epoch)
        return self.pictures and is_picture_epoch(trial.run, trial.epoch)

    def save(self, trial: TrialState, report: Mapping[str, float], *, diverged: bool) -> None:
        assert Journal(trial.folder).epochs()[-1:] == ([trial.epoch] if self.writes else [])
        self.saved.append((trial.epoch, diverged, dict(report)))


RUN = small_run(Train, epochs=5, picture_every=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SmallData:
    return small_data(RUN, tmp_path_factory.mktemp("store"))


def make_trial(data: SmallData, folder: Path, run: Train = RUN) -> TrialState:
    return TrialState(run, make_learner(run, data.images, data.num_classes), folder)


def train(data: SmallData) -> Any:
    def run(learners: Sequence[Learner]) -> None:
        for learner in learners:
            for batch, share in data.images.batches(learner.seed, int(learner.epoch) + 1):
                learner.step(batch, share)

    return run


def diverge(learners: Sequence[Learner]) -> None:
    """Train a step, after which the first network's weights are not finite."""
    for learner in learners:
        next(iter(learner.networks["decoder"].parameters())).data.fill_(math.nan)


def run_epochs(
    data: SmallData, trial: TrialState, outputs: RecordedOutputs, num: int
) -> list[Any]:
    loop = EpochLoop(data.images, data.evaluator, outputs)
    return [loop.run([trial], train(data))[0] for _ in range(num)]


# -- an epoch -----------------------------------------------------------------------------------
def test_an_epoch_is_trained_validated_recorded_and_reported(
    data: SmallData, tmp_path: Path
) -> None:
    trial, outputs = make_trial(data, tmp_path), RecordedOutputs()
    (report,) = run_epochs(data, trial, outputs, 1)
    assert trial.epoch == 1 and trial.learner.epoch == 1.0
    assert outputs.saved == [(1, False, report)]
    assert report["epoch"] == 1 and report["diverged"] == 0
    record = Journal(tmp_path).record(1)
    assert record.metrics["diverged"] == 0.0
    assert {**record.metrics, "epoch": 1} == report
    expected = {"train/elbo", METRIC, "val/fd/pca-digits/2k", "epoch_seconds", "images_per_second"}
    assert expected <= record.metrics.keys()
    assert record.metrics["config/optim.lr"] == 0.5
    assert record.metrics["images_per_second"] == pytest.approx(
        data.images.images_per_epoch / record.metrics["epoch_seconds"]
    )
    assert trial.costs == {1: report[METRIC]}  # a metric that should be small


@pytest.mark.parametrize("mode", ["min", "max"])
def test_an_epoch_has_the_best_value_up_to_it(mode: str, data: SmallData, tmp_path: Path) -> None:
    trial = make_trial(data, tmp_path, small_run(Train, epochs=5, mode=mode))
    trial.costs[9] = -1e9  # a later one, recorded before training was resumed
    reports = run_epochs(data, trial, RecordedOutputs(), 4)
    best = {"min": min, "max": max}[mode]
    values = [report[METRIC] for report in reports]
    expected = [best(values[:num]) for num in range(1, 5)]
    assert [report[BEST_CURVE] for report in reports] == expected
    assert [r.metrics[BEST_CURVE] for r in Journal(tmp_path).records()] == expected


def test_training_lowers_the_metric_that_ranks(data: SmallData, tmp_path: Path) -> None:
    trial = make_trial(data, tmp_path)
    reports = run_epochs(data, trial, RecordedOutputs(), 4)
    assert reports[-1][METRIC] < reports[0][METRIC] - 0.2
    assert list(trial.costs) == [1, 2, 3, 4]


def test_pictures_are_drawn_where_they_are_due(data: SmallData, tmp_path: Path) -> None:
    outputs = RecordedOutputs()
    run_epochs(data, make_trial(data, tmp_path), outputs, 5)
    assert outputs.asked == [1, 2, 3, 4, 5]
    pictures = {r.epoch: set(r.pictures) for r in Journal(tmp_path).records()}
    both = {"samples", "reconstructions"}
    assert pictures == {1: both, 2: both, 3: set(), 4: both, 5: both}
    for record in Journal(tmp_path).records():
        for path in record.pictures.values():
            assert path.read_bytes().startswith(b"\x89PNG")


def test_with_the_first_picture_that_of_the_beginning_is_drawn(
    data: SmallData, tmp_path: Path
) -> None:
    trial, journal = make_trial(data, tmp_path), Journal(tmp_path)
    at_start = data.evaluator.pictures(trial.learner.model, trial.learner.sampling_networks())
    run_epochs(data, trial, RecordedOutputs(pictures=False), 1)
    assert not journal.start().pictures
    run_epochs(data, trial, RecordedOutputs(), 1)
    drawn = {key: path.read_bytes() for key, path in journal.start().pictures.items()}
    assert drawn == at_start
    assert drawn["samples"] != journal.record(2).pictures["samples"].read_bytes()
    assert journal.epochs() == [1, 2]  # the beginning is no epoch


def test_the_outputs_decide_about_pictures(data: SmallData, tmp_path: Path) -> None:
    run_epochs(data, make_trial(data, tmp_path), RecordedOutputs(pictures=False), 1)
    assert Journal(tmp_path).record(1).pictures == {}


def test_a_process_that_does_not_write_leaves_the_journal_alone(
    data: SmallData, tmp_path: Path
) -> None:
    outputs = RecordedOutputs(writes=False)
    (report,) = run_epochs(data, make_trial(data, tmp_path), outputs, 1)
    assert not Journal(tmp_path).epochs() and not outputs.asked
    assert outputs.saved == [(1, False, report)]  # it reports nevertheless


def test_several_trials_share_the_time_and_nothing_else(data: SmallData, tmp_path: Path) -> None:
    runs = [small_run(Train, epochs=5, seed=seed) for seed in (0, 1)]
    together = [make_trial(data, tmp_path / f"t{run.seed}", run) for run in runs]
    loop = EpochLoop(data.images, data.evaluator, RecordedOutputs(pictures=False))
    reports = loop.run(together, train(data))
    assert reports[0]["epoch_seconds"] == reports[1]["epoch_seconds"]
    for run, report in zip(runs, reports, strict=True):
        trial = make_trial(data, tmp_path / f"alone{run.seed}", run)
        (alone,) = run_epochs(data, trial, RecordedOutputs(pictures=False), 1)
        assert report[METRIC] == pytest.approx(alone[METRIC], rel=1e-5)
    assert reports[0][METRIC] != reports[1][METRIC]


# -- divergence -----------------------------------------------------------------------------------
def test_an_epoch_that_diverged_is_recorded_and_reports_the_worst_value(
    data: SmallData, tmp_path: Path
) -> None:
    trial, outputs = make_trial(data, tmp_path), RecordedOutputs()
    run_epochs(data, trial, outputs, 1)
    loop = EpochLoop(data.images, data.evaluator, outputs)
    (report,) = loop.run([trial], diverge)
    assert (report["epoch"], report["diverged"], report[METRIC]) == (2, 1, 1e30)
    assert all(math.isfinite(value) for value in report.values())
    assert outputs.saved[-1] == (2, True, report)
    record = Journal(tmp_path).record(2)
    assert record.metrics["diverged"] == 1.0 and METRIC not in record.metrics
    assert record.context.divergence == f"{METRIC} is nan"
    assert not Journal(tmp_path).record(1).context.divergence
    assert record.pictures == {} and outputs.asked == [1]
    assert list(trial.costs) == [1]  # never the best epoch


@pytest.mark.parametrize(("mode", "worst"), [("min", 1e30), ("max", -1e30)])
def test_the_worst_value_follows_the_direction(mode: Any, worst: float) -> None:
    run = small_run(Train, mode=mode)
    assert ray_report(run, 3, {METRIC: math.nan, "x": 1.0}, diverged=True) == {
        **{METRIC: worst, "x": 1.0, "epoch": 3, "diverged": 1}
    }
    assert ray_report(run, 3, {METRIC: 2.0}, diverged=True)[METRIC] == worst
    assert ray_report(run, 3, {METRIC: 2.0, "x": math.inf}, diverged=False) == {
        **{METRIC: 2.0, "epoch": 3, "diverged": 0}
    }


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({METRIC: 1e30}, ""),
        ({METRIC: math.nan}, f"{METRIC} is nan"),
        ({METRIC: 1.0, "train/loss": -math.inf}, "train/loss is -inf"),
        (
            {METRIC: math.nan, "train/generator_loss": math.nan, "train/discriminator_loss": 1.0},
            f"train/generator_loss is nan, {METRIC} is nan",
        ),
        ({METRIC: 1.0, "train/iw_bound": -math.inf}, ""),
        ({METRIC: 1.0, "val/elbo": -math.inf, "val/kl": math.inf}, ""),
    ],
)
def test_losses_and_the_ranking_metric_decide_whether_a_run_diverged(
    metrics: dict[str, float], reason: str, data: SmallData, tmp_path: Path
) -> None:
    learner = make_trial(data, tmp_path).learner
    assert divergence(metrics, METRIC, learner) == reason


def test_a_parameter_that_is_not_finite_is_a_divergence(data: SmallData, tmp_path: Path) -> None:
    learner = make_trial(data, tmp_path).learner
    next(iter(learner.networks["encoder"].parameters())).data.view(-1)[3] = math.inf
    reason = divergence({METRIC: 1.0, "train/loss": 1.0}, METRIC, learner)
    assert reason == "a weight is not a finite number"


def test_an_epoch_lacks_a_side_metric_that_overflows_and_training_goes_on(
    data: SmallData, tmp_path: Path
) -> None:
    """The posterior variance overflows: the bound is not finite, and samples, which rank, are."""
    ranked = "val/fd/pca-digits/2k"
    trial = make_trial(data, tmp_path, small_run(Train, epochs=5, metric=ranked))
    outputs = RecordedOutputs()

    def overflow(learners: Sequence[Learner]) -> None:
        train(data)(learners)
        last = list(learners[0].networks["encoder"].parameters())[-1]  # means and log variances
        last.data[1::2] = 500.0

    loop = EpochLoop(data.images, data.evaluator, outputs)
    (report,) = loop.run([trial], overflow)
    assert (report["epoch"], report["diverged"]) == (1, 0) and math.isfinite(report[ranked])
    missing = {"val/elbo", "val/kl", METRIC}
    assert not missing & report.keys()
    record = Journal(tmp_path).record(1)
    assert record.metrics["diverged"] == 0.0 and not missing & record.metrics.keys()
    assert outputs.saved == [(1, False, report)] and list(trial.costs) == [1]
    list(trial.learner.networks["encoder"].parameters())[-1].data[1::2] = 0.0
    (after,) = loop.run([trial], train(data))
    assert after["diverged"] == 0 and missing <= after.keys()


# -- reports ------------------------------------------------------------------------------------
def test_the_report_of_an_epoch_can_be_repeated(data: SmallData, tmp_path: Path) -> None:
    reports = run_epochs(data, make_trial(data, tmp_path), RecordedOutputs(), 2)
    for epoch, report in enumerate(reports, 1):
        assert repeated_report(tmp_path, epoch) == report
    with pytest.raises(FileNotFoundError):
        repeated_report(tmp_path, 3)


def test_a_record_holds_finite_numbers_alone(tmp_path: Path) -> None:
    metrics = {"a": 1.5, "b": math.nan, "c": math.inf, "diverged": 1.0}
    write_epoch_record(tmp_path, 7, metrics, {"samples": b"png"})
    content = json.loads((tmp_path / "journal/reports/000007.json").read_text())
    assert content == {"epoch": 7, "metrics": {"a": 1.5, "diverged": 1.0}, "pictures": ["samples"]}
    assert Journal(tmp_path).record(7).pictures["samples"].read_bytes() == b"png"


@pytest.mark.parametrize(
    ("every", "epochs", "due"),
    [(1, 4, [1, 2, 3, 4]), (2, 5, [1, 2, 4, 5]), (3, 7, [1, 3, 6, 7]), (100, 5, [1, 5])],
)
def test_epochs_with_pictures(every: int, epochs: int, due: list[int]) -> None:
    run = small_run(Train, epochs=epochs, picture_every=every)
    assert [e for e in range(1, epochs + 1) if is_picture_epoch(run, e)] == due
