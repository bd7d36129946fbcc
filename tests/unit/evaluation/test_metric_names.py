"""Names of metrics."""

import subprocess
import sys

import pytest

from pipelines.evaluation.metric_names import (
    bound_of,
    frechet_name,
    matching,
    mean_over,
    standard_error,
    where,
)


@pytest.mark.parametrize(
    ("num", "expected"),
    [
        *((8, "ring8/8"), (1000, "ring8/1000"), (1999, "ring8/1999"), (2500, "ring8/2500")),
        *((2000, "ring8/2000"), (2048, "ring8/2k"), (10_000, "ring8/10k")),
    ],
)
def test_a_name_holds_the_number_of_samples(num: int, expected: str) -> None:
    assert where("ring8", num) == expected


def test_no_two_numbers_have_one_name() -> None:
    assert len({where("x", num) for num in range(30_000)}) == 30_000


def test_names_of_bounds_and_means_hold_samples_and_images() -> None:
    assert (bound_of(5000, 1000), mean_over(50, 20)) == ("iw5000/1000", "mc50/20")
    assert standard_error("kd") == "kd_standard_error"


def test_the_frechet_distance_has_its_space_and_samples_in_its_name() -> None:
    assert frechet_name("lenet-mnist") == "val/fd/lenet-mnist/2k"


def test_names_match_as_a_whole_or_up_to_a_slash() -> None:
    names = ["val/fd/lenet-mnist/2k", "val/fdx", "val/fd", "val/elbo"]
    assert matching("val/fd", names) == ["val/fd/lenet-mnist/2k", "val/fd"]
    assert matching("val/fd/lenet-mnist/2k", names) == ["val/fd/lenet-mnist/2k"]
    assert matching("val/nll", names) == []


def test_names_are_available_without_torch() -> None:
    code = (
        "import sys, pipelines.evaluation.metric_names; "
        "sys.exit(bool({'torch', 'ray'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
