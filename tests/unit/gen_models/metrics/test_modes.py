"""Modes found by hand values, and the mixtures on which they are counted."""

import math

import pytest
import torch

from gen_models import DataSpec
from gen_models.metrics.lenet import ClassModes, LeNet
from gen_models.metrics.mixtures import MIXTURES, grid25, ring8
from gen_models.metrics.modes import modes, nearest_mode


def test_modes_have_their_hand_values(device: torch.device) -> None:
    found = modes(torch.tensor([0, 0, 0, 2, -1], device=device), num_modes=4)
    assert (found.found, found.num_modes) == (2, 4)
    assert found.share == pytest.approx(4 / 5)
    # 3/4 and 1/4 against 1/4 each
    expected = 0.75 * math.log(0.75 / 0.25) + 0.25 * math.log(0.25 / 0.25)
    assert found.reverse_kl == pytest.approx(expected)


def test_the_reference_is_what_samples_are_compared_with(device: torch.device) -> None:
    assigned = torch.tensor([0, 0, 0, 1], device=device)
    same = modes(assigned, 2, reference=torch.tensor([30, 10]))
    assert same.reverse_kl == pytest.approx(0.0, abs=1e-12) and not same.collapsed
    other = modes(assigned, 2, reference=torch.tensor([1, 3]))
    expected = 0.75 * math.log(0.75 / 0.25) + 0.25 * math.log(0.25 / 0.75)
    assert other.reverse_kl == pytest.approx(expected)
    assert modes(assigned, 2, reference=torch.tensor([5, 0])).reverse_kl == math.inf
    assert modes(assigned[:3], 2, reference=torch.tensor([5, 0])).reverse_kl == 0.0


@pytest.mark.parametrize(
    ("counts", "collapsed"),
    [
        ([100] * 10, False),
        ([982] + [2] * 9, True),
        ([100] * 9 + [0], True),
        ([40] * 5 + [160] * 5, False),  # uneven, and each is there
        ([1] * 4 + [2] * 4 + [0] * 2, False),  # twelve samples of ten modes: two lack by chance
        ([12] + [0] * 9, True),  # and nine do not
        ([0] * 10, True),
    ],
)
def test_a_mode_is_lost_that_lacks_by_more_than_chance(counts: list[int], collapsed: bool) -> None:
    assigned = torch.repeat_interleave(torch.arange(10), torch.tensor(counts))
    assigned = assigned if len(assigned) else torch.full((50,), -1)
    assert modes(assigned, 10).collapsed is collapsed


def test_modes_without_data_are_not_counted() -> None:
    assigned = torch.arange(1, 11).repeat(30)
    found = modes(assigned, 11, reference=torch.tensor([0] + [30] * 10))
    assert (found.found, found.num_modes, found.lost, found.collapsed) == (10, 10, 0, False)


def test_a_rare_mode_may_be_missing() -> None:
    assigned = torch.zeros(1000, dtype=torch.int64)
    assert not modes(assigned, 2, reference=torch.tensor([9999, 1])).collapsed
    assert modes(assigned, 2, reference=torch.tensor([9, 1])).collapsed


def test_samples_within_a_mode_that_are_all_alike_are_a_collapse() -> None:
    ring = ring8()
    points, chosen = ring.sample(800, seed=1)
    assert ring.modes(points).spread == pytest.approx(1.0, abs=0.25)
    centres = ring.centres[chosen]
    alike = ring.modes(centres + 0.01 * (points - centres))
    assert alike.lost == 0 and alike.spread < 0.02 and alike.collapsed
    one = points.clone()
    one[chosen == 3] = ring.centres[3]
    assert ring.modes(one).spread == 0.0 and ring.modes(one).collapsed
    few = ring.modes(points[:2])
    assert math.isnan(few.spread)


def test_samples_of_no_mode(device: torch.device) -> None:
    found = modes(torch.tensor([-1, -1], device=device), num_modes=3)
    assert (found.found, found.share) == (0, 0.0)
    assert math.isnan(found.reverse_kl)


@pytest.mark.parametrize("wrong", [-2, 3])
def test_a_mode_out_of_range_is_refused(wrong: int, device: torch.device) -> None:
    with pytest.raises(ValueError, match="expected modes from -1 to 2"):
        modes(torch.tensor([0, wrong], device=device), num_modes=3)


def test_nearest_mode_within_three_deviations(device: torch.device) -> None:
    centres = torch.tensor([[0.0, 0.0], [1.0, 0.0]], device=device)
    samples = torch.tensor(
        [[0.29, 0.0], [0.0, -0.31], [0.9, 0.2], [0.5, 0.0], [1.22, 0.22], [math.nan, 0.0]],
        device=device,
    )
    assert nearest_mode(samples, centres, std=0.1).tolist() == [0, -1, 1, -1, -1, -1]


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_s_samples_are_of_its_modes(name: str) -> None:
    mixture = MIXTURES[name]()
    assert mixture.name == name
    points, chosen = mixture.sample(20_000, seed=0)
    assert points.shape == (20_000, 2)
    assert float(points.min()) > 0.0 and float(points.max()) < 1.0
    found = mixture.modes(points)
    assert not found.collapsed and found.reverse_kl < 0.002
    # of a Gaussian in the plane, exp(-9/2) is farther than three deviations
    assert found.share == pytest.approx(1.0 - math.exp(-4.5), abs=0.003)
    assigned = nearest_mode(points, mixture.centres, mixture.std, within=9.0)
    assert torch.equal(assigned, chosen)


def test_mixtures_follow_from_their_seed() -> None:
    first, again, other = (ring8().sample(50, seed) for seed in (0, 0, 1))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_mixtures_keep_their_proportions() -> None:
    ring, grid = ring8(), grid25()
    assert len(ring.centres) == 8 and len(grid.centres) == 25
    radius = (ring.centres - 0.5).norm(dim=1)
    torch.testing.assert_close(radius, radius[:1].expand(8))
    assert float(radius[0]) / ring.std == pytest.approx(1.0 / 0.01, rel=1e-5)
    spacing = torch.cdist(grid.centres, grid.centres).fill_diagonal_(1.0).min()
    assert float(spacing) / grid.std == pytest.approx(2.0 / 0.05, rel=1e-5)


@pytest.mark.usefixtures("deterministic")
def test_classes_are_told_apart_by_their_classifier(device: torch.device) -> None:
    spec = DataSpec((1, 8, 8), 10)
    network = LeNet("lenet-x", spec).eval().requires_grad_(False).to(device)
    images = torch.rand(2500, *spec.shape, device=device)
    assigned = network.logits(images).argmax(1)
    reference = torch.bincount(assigned, minlength=10)
    mode_classifier = ClassModes.of(network, images, assigned)
    found = mode_classifier.modes(images)
    assert mode_classifier.name == "lenet-x" and found.share == 1.0
    assert found.found == found.num_modes == int((reference > 0).sum())
    assert found.reverse_kl == pytest.approx(0.0, abs=1e-12)
    assert found.spread == pytest.approx(1.0) and not found.collapsed
