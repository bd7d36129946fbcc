"""Distances between samples and data against brute force, closed forms and other libraries."""

from collections.abc import Callable
from dataclasses import astuple

import pytest
import torch
from support.models import Device
from torch import Generator, Tensor, nn

from gen_models import InputError
from gen_models.metrics import (
    Moments,
    Neighbours,
    compute_prdc,
    estimate_prdc,
    frechet_distance,
    kernel_distance,
)

DIM = 6


def gaussian(num: int, seed: int, shift: float = 0.0, device: Device = "cpu") -> Tensor:
    """Features of a correlated Gaussian, (num, 6), float64, the same on every device; `shift`
    moves and stretches it."""
    mixing, mean = parameters(shift)
    noise = torch.randn(num, DIM, generator=Generator().manual_seed(seed), dtype=torch.float64)
    return (noise @ mixing.T + mean).to(device)


def parameters(shift: float) -> tuple[Tensor, Tensor]:
    """A root of the covariance, and the mean."""
    generator = Generator().manual_seed(99)
    mixing = torch.eye(DIM) + 0.3 * torch.randn(DIM, DIM, generator=generator)
    mean = torch.randn(DIM, generator=generator)
    return (1 + shift) * mixing.double(), (1 + shift) * mean.double()


def kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


def full_kernel_distance(a: Tensor, b: Tensor) -> float:
    n, m = len(a), len(b)
    within_a, within_b = kernel(a, a), kernel(b, b)
    value = (within_a.sum() - within_a.trace()) / (n * (n - 1))
    value += (within_b.sum() - within_b.trace()) / (m * (m - 1))
    return float(value - 2 * kernel(a, b).mean())


def without(features: Tensor, index: int) -> Tensor:
    return torch.cat([features[:index], features[index + 1 :]])


def jackknife_error(a: Tensor, b: Tensor) -> float:
    """By its definition: the distance once more without each of the samples."""
    of_a = [full_kernel_distance(without(a, i), b) for i in range(len(a))]
    of_b = [full_kernel_distance(a, without(b, i)) for i in range(len(b))]
    left_out = (torch.tensor(values, dtype=torch.float64) for values in (of_a, of_b))
    return sum(float((len(v) - 1) * v.var(correction=0)) for v in left_out) ** 0.5


def expected_kernel(shift_a: float, shift_b: float) -> float:
    """E k(x, y) of independent Gaussians, from their first three moments."""
    moments = []
    for mixing, mean in (parameters(shift_a), parameters(shift_b)):
        covariance = mixing @ mixing.T
        second = covariance + mean[:, None] * mean
        third = mean[:, None, None] * mean[:, None] * mean
        for pairing in ("i,jk->ijk", "j,ik->ijk", "k,ij->ijk"):
            third = third + torch.einsum(pairing, mean, covariance)
        moments.append((mean, second, third))
    first, second, third = (float((x * y).sum()) for x, y in zip(*moments, strict=True))
    return 1 + 3 * first / DIM + 3 * second / DIM**2 + third / DIM**3


def over_seeds(
    num: int, other: int, shift: float, seeds: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Values and standard errors of the kernel distance of fresh samples, each (seeds,)."""
    sides = (
        (gaussian(num, seed, 0.0, device), gaussian(other, 5000 + seed, shift, device))
        for seed in range(seeds)
    )
    found = [astuple(kernel_distance(*each)) for each in sides]
    values, errors = zip(*found, strict=True)
    return torch.stack(values), torch.stack(errors)


@pytest.mark.parametrize("num, other", [(40, 40), (23, 61), (3, 9)])
def test_kernel_distance_is_that_of_full_matrices(
    num: int, other: int, device: torch.device
) -> None:
    a, b = gaussian(num, 0, 0.0, device), gaussian(other, 1, 0.2, device)
    found = kernel_distance(a, b, block=16)
    assert float(found.value) == pytest.approx(full_kernel_distance(a, b), rel=1e-10)
    assert float(found.standard_error) == pytest.approx(jackknife_error(a, b), rel=1e-8)
    turned = kernel_distance(b, a)
    torch.testing.assert_close(astuple(turned), astuple(found))


def test_kernel_distance_is_unbiased_and_its_error_is_that_over_samples(
    device: torch.device,
) -> None:
    expected = expected_kernel(0, 0) + expected_kernel(0.2, 0.2) - 2 * expected_kernel(0, 0.2)
    values, errors = over_seeds(150, 320, 0.2, 400, device)
    of_mean = float(values.std()) / len(values) ** 0.5
    assert float(values.mean()) == pytest.approx(expected, abs=4 * of_mean)
    assert of_mean < 0.05 * expected
    assert float(errors.mean()) == pytest.approx(float(values.std()), rel=0.15)


def test_kernel_distance_of_equal_distributions_is_zero_within_its_error(
    device: torch.device,
) -> None:
    values, errors = over_seeds(150, 320, 0.0, 400, device)
    assert abs(float(values.mean())) < 4 * float(values.std()) / len(values) ** 0.5
    assert 0.9 < float(errors.mean() / values.std()) < 1.7  # rather too large, as it says


def test_kernel_distance_does_not_depend_on_the_block_or_much_on_the_precision(
    device: torch.device,
) -> None:
    a, b = gaussian(700, 0, 0.0, device), gaussian(500, 1, 0.05, device)
    whole = kernel_distance(a, b)
    torch.testing.assert_close(astuple(kernel_distance(a, b, block=37)), astuple(whole))
    single = kernel_distance(a.float(), b.float(), block=100)
    assert single.value.dtype == torch.float64
    assert abs(float(single.value - whole.value)) < 1e-3 * float(whole.standard_error)
    half = kernel_distance(a.bfloat16(), b.bfloat16())
    rounded = kernel_distance(a.bfloat16().double(), b.bfloat16().double())
    assert abs(float(half.value - rounded.value)) < 1e-3 * float(whole.standard_error)


def full_prdc(real: Tensor, generated: Tensor, k: int) -> list[float]:
    """From full matrices of distances that no product rounds."""
    exact = "donot_use_mm_for_euclid_dist"
    radii = [torch.cdist(x, x, compute_mode=exact).sort(1).values[:, k] for x in (real, generated)]
    distances = torch.cdist(real, generated, compute_mode=exact)
    inside = distances < radii[0][:, None]
    parts = (
        inside.any(0),
        (distances < radii[1]).any(1),
        inside.double().sum(0) / k,
        distances.min(1).values < radii[0],
    )
    return [float(part.double().mean()) for part in parts]


@pytest.mark.parametrize("num, other, k, shift", [(300, 300, 5, 0.0), (150, 410, 3, 0.5)])
def test_prdc_is_that_of_full_matrices_in_any_block(
    num: int, other: int, k: int, shift: float, device: torch.device
) -> None:
    real, generated = gaussian(num, 0, 0.0, device), gaussian(other, 1, shift, device)
    expected = full_prdc(real, generated, k)
    for block in (17, 256, 1000):
        found = compute_prdc(Neighbours.of(real, k, block), generated, block)
        assert list(map(float, astuple(found))) == pytest.approx(expected, abs=1e-12)


def test_prdc_of_points_on_a_line_is_that_by_hand(device: torch.device) -> None:
    # Balls of radius 1, 1, 2 and 4 around the real points; 1, 1 and 17 around the others. A
    # point at a distance of exactly the radius is outside.
    real, generated = torch.tensor([[0.0], [1], [3], [7]]), torch.tensor([[2.0], [3], [20]])
    found = compute_prdc(Neighbours.of(real.to(device), k=1), generated.to(device))
    assert list(map(float, astuple(found))) == pytest.approx([2 / 3, 2 / 4, 2 / 3, 1 / 4])


def test_standard_errors_are_those_of_means(device: torch.device) -> None:
    real = gaussian(200, 0, 0.0, device)
    drawn = [gaussian(150, seed, 0.4, device) for seed in range(1, 41)]
    found = [estimate_prdc(Neighbours.of(real), generated) for generated in drawn]
    assert all(
        astuple(each[0]) == astuple(compute_prdc(Neighbours.of(real), g))
        for each, g in zip(found[:3], drawn, strict=False)
    )
    for name in ("precision", "density"):  # means over what was drawn anew
        values = torch.stack([getattr(value, name) for value, _ in found])
        errors = torch.stack([getattr(error, name) for _, error in found])
        assert float(errors.mean()) == pytest.approx(float(values.std()), rel=0.3), name


def test_a_generator_that_makes_one_image_has_no_recall(device: torch.device) -> None:
    real = gaussian(200, 0, 0.0, device)
    found = compute_prdc(Neighbours.of(real), real[7].repeat(50, 1))
    assert (float(found.precision), float(found.recall)) == (1.0, 0.0)
    assert float(found.coverage) < 0.2


def test_precision_is_kept_far_from_the_origin(device: torch.device) -> None:
    real, generated = gaussian(200, 0, 0.0, device), gaussian(200, 1, 0.3, device)
    near = compute_prdc(Neighbours.of(real), generated)
    far = compute_prdc(Neighbours.of(real + 1e4), generated + 1e4)
    assert astuple(near) == astuple(far)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", [0, 1])
def test_distances_of_what_is_not_finite_are_nan(
    bad: float, side: int, device: torch.device
) -> None:
    sides = [gaussian(30, 0, 0.0, device), gaussian(40, 1, 0.0, device)]
    sides[side][3, 2] = bad
    kernel_found = kernel_distance(*sides, block=16)
    prdc_found = compute_prdc(Neighbours.of(sides[0]), sides[1])
    found = [*astuple(kernel_found), *astuple(prdc_found)]
    assert bool(torch.stack(found).isnan().all())


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Neighbours.of(gaussian(5, 0), k=5), "k = 5: expected 1 to 4, for 5 features"),
        (lambda: Neighbours.of(gaussian(5, 0), k=0), "k = 0: expected 1 to 4"),
        (
            lambda: compute_prdc(Neighbours.of(gaussian(9, 0), k=3), gaussian(3, 1)),
            "k = 3: expected 1 to 2, for 3 features",
        ),
        (
            lambda: kernel_distance(gaussian(9, 0), gaussian(2, 1)),
            "generated features = 2: expected at least 3",
        ),
    ],
)
def test_too_few_features_are_the_user_s_to_mend(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


class AsTheyAre(nn.Module):
    """Features for torchmetrics that are already features."""

    num_features = DIM

    def forward(self, features: Tensor) -> Tensor:
        return features


def fidelity_kernel(a: Tensor, b: Tensor, subsets: int, size: int) -> tuple[float, float]:
    theirs = pytest.importorskip("torch_fidelity.metric_kid").kid_features_to_metric
    found = theirs(a, b, kid_subsets=subsets, kid_subset_size=size, verbose=False)
    return found["kernel_inception_distance_mean"], found["kernel_inception_distance_std"]


def torchmetrics_kernel(a: Tensor, b: Tensor, subsets: int, size: int) -> tuple[float, float]:
    theirs = pytest.importorskip("torchmetrics.image.kid").KernelInceptionDistance
    metric = theirs(feature=AsTheyAre(), subsets=subsets, subset_size=size)
    metric.update(a, real=True)
    metric.update(b, real=False)
    value, deviation = metric.compute()
    return float(value), float(deviation)


@pytest.mark.parametrize("theirs", [fidelity_kernel, torchmetrics_kernel])
def test_kernel_distance_is_theirs(
    theirs: Callable[[Tensor, Tensor, int, int], tuple[float, float]], device: torch.device
) -> None:
    # Theirs is a mean over random subsets: of all features, it is ours; of fewer, it is ours but
    # for the choice of subsets.
    torch.manual_seed(0)
    a, b = gaussian(300, 0), gaussian(300, 1, 0.2)
    ours = kernel_distance(a.to(device), b.to(device))
    assert theirs(a, b, 1, 300)[0] == pytest.approx(float(ours.value), rel=1e-6)
    more = gaussian(500, 2, 0.2)
    ours = kernel_distance(a.to(device), more.to(device))
    value, deviation = theirs(a, more, 400, 100)
    assert value == pytest.approx(float(ours.value), abs=4 * deviation / 400**0.5)
    assert 4 * deviation / 400**0.5 < 0.3 * float(ours.value)


def fidelity_frechet(a: Tensor, b: Tensor) -> float:
    theirs = pytest.importorskip("torch_fidelity.metric_fid")
    statistics = (theirs.fid_features_to_statistics(x) for x in (a, b))
    found = theirs.fid_statistics_to_metric(*statistics, verbose=False)
    return float(found["frechet_inception_distance"])


def torchmetrics_frechet(a: Tensor, b: Tensor) -> float:
    theirs = pytest.importorskip("torchmetrics.image.fid").FrechetInceptionDistance
    metric = theirs(feature=AsTheyAre()).set_dtype(torch.float64)
    metric.update(a, real=True)
    metric.update(b, real=False)
    return float(metric.compute())


def closed_form(a: Tensor, b: Tensor) -> float:
    """Of N(m, C) and N(1.2 m, 1.44 C): |0.2 m|^2 + 0.2^2 tr(C)."""
    mixing, mean = parameters(0.0)
    return 0.04 * float(mean.square().sum() + mixing.square().sum())


@pytest.mark.parametrize(
    "theirs, rel", [(fidelity_frechet, 1e-6), (torchmetrics_frechet, 1e-6), (closed_form, 0.05)]
)
def test_frechet_distance_is_theirs_and_the_closed_form(
    theirs: Callable[[Tensor, Tensor], float], rel: float, device: torch.device
) -> None:
    a, b = gaussian(40_000, 0), gaussian(30_000, 1, 0.2)
    ours = float(frechet_distance(Moments.of(a.to(device)), Moments.of(b.to(device))))
    assert theirs(a, b) == pytest.approx(ours, rel=rel)


def fidelity_precision(real: Tensor, generated: Tensor) -> tuple[float, float]:
    theirs = pytest.importorskip("torch_fidelity.metric_prc").prc_features_to_metric
    found = theirs(generated, real, verbose=False)
    return found["precision"], found["recall"]


def test_precision_and_recall_are_theirs_but_for_points_on_the_surface(
    device: torch.device,
) -> None:
    # Theirs has k = 3 by default, and what lies on a ball's surface is inside.
    real, generated = gaussian(300, 0), gaussian(500, 1, 0.4)
    ours = compute_prdc(Neighbours.of(real.to(device), k=3), generated.to(device))
    expected = fidelity_precision(real, generated)
    assert (float(ours.precision), float(ours.recall)) == pytest.approx(expected, abs=1e-6)
    line = torch.arange(5.0)[:, None]
    beyond = line + 7  # the nearest is 3 from the last real one, as far as its 3rd neighbour
    ours = compute_prdc(Neighbours.of(line.to(device), k=3), beyond.to(device))
    assert (float(ours.precision), float(ours.recall)) == (0.0, 0.0)
    assert fidelity_precision(line, beyond) == pytest.approx((0.2, 0.2))


def test_few_samples_make_a_frechet_distance_too_large() -> None:
    """Why `genpipe evaluate` warns below 2,048: the bias falls as one over the number."""
    generator = torch.Generator().manual_seed(0)
    real = Moments.of(torch.randn(20_000, 32, generator=generator))
    found = {
        num: float(frechet_distance(real, Moments.of(torch.randn(num, 32, generator=generator))))
        for num in (64, 256, 2048)
    }
    assert found[64] > 3 * found[256] > 9 * found[2048] > 0
