"""Fused training: a learner's result does not depend on those that are trained beside it."""

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, get_type_hints

import pytest
import torch
from support.models import SPEC, VARIANTS, some_pixels
from torch import Tensor
from torch.utils._pytree import tree_flatten

import gen_models
from gen_models import Adam, Learner
from gen_models.core.contract import Objective
from gen_models.core.digest import weights_digest
from gen_models.fused.learners import kind, structure_name
from gen_models.fused.trainer import Choice, Execution, FusedTrainer
from gen_models.training.batches import TrainingImages
from gen_models.training.precision import Precision

STEPS = 5
"""In an epoch."""
EACH_FAMILY = pytest.mark.parametrize(
    "variant", ["autoencoder-mlp", "vae-conv", "gan-conditional-mlp"]
)


@pytest.fixture
def data(device: torch.device) -> TrainingImages:
    return TrainingImages(some_pixels(16 * STEPS + 10, device), 16, drop_last=True)


def member(
    variant: str,
    index: int,
    device: torch.device,
    precision: Precision = "fp32",
    *,
    compiled: bool = False,
    **changes: Any,
) -> Learner:
    """One of several learners of a family that differ in all that members may differ in: every
    number of the config is on, and it and the widths and the optimizers have `index`'s own."""
    family, settings = VARIANTS[variant]
    module = gen_models.family(family)
    hints = get_type_hints(module.Config)
    numbers = {
        field.name: 0.1 * (1 + index) + (field.default or 0.1)
        for field in fields(module.Config)
        if hints[field.name] is float and field.name not in {**settings, **changes}
    }
    config = replace(module.Config(), **{**settings, **numbers, **changes})
    model = module.Model(config, SPEC)
    wider = {name: getattr(config, name) + 2 * index for name in model.widths}
    model = module.Model(replace(config, **wider), SPEC)
    optim = own_optim(module.Optim(), index)
    return Learner(
        model,
        optim,
        seed=index // 2,
        steps_per_epoch=STEPS,
        device=device,
        precision=precision,
        compiled=compiled,
    )


def own_optim(optim: Any, index: int) -> Any:
    """`optim` with settings of a member's own in each of its optimizers."""
    if not isinstance(optim, Adam):
        names = [field.name for field in fields(optim)]
        return replace(optim, **{n: own_optim(getattr(optim, n), index) for n in names})
    return replace(
        optim,
        lr=optim.lr * (1 + 0.3 * index),
        betas=(0.1 * index, 0.99 - 0.01 * index),
        decay_epochs=4.0 * index,
        weight_decay=0.01 * index,
        ema_decay=0.9 + 0.01 * index,
    )


CASES = [
    *((variant, {}) for variant in VARIANTS),
    # With free bits, or another number, switched off, and every loss that there is.
    ("vae-mlp", {"free_bits": 0.0}),
    ("vae-mlp", {"free_bits": 0.0, "likelihood": "gaussian", "kl_warmup_epochs": 0.0}),
    ("vae-conv", {"free_bits": 0.0}),
    ("vae-iwae", {"likelihood": "gaussian", "kl_warmup_epochs": 0.0}),
    ("vae-conv", {"free_bits": 0.0, "importance_samples": 2}),
    ("autoencoder-mlp", {"noise_std": 0.0, "density": "gaussian"}),
    ("gan-mlp", {"loss": "wasserstein", "discriminator_steps": 3}),
    ("gan-conv", {"loss": "non_saturating", "spectral_norm": False, "gradient_penalty": 0.0}),
    ("gan-mlp", {"loss": "least_squares", "r1_penalty": 0.0}),
    # Rows that are judged together, with both penalties and without.
    ("gan-mlp", {"pac": 2, "minibatch_std": 4}),
    ("gan-conv", {"pac": 4}),
    ("gan-conditional-mlp", {"pac": 2, "minibatch_std": 2}),
    ("gan-conv", {"minibatch_std": 8, "gradient_penalty": 0.0, "r1_penalty": 0.0}),
]


def trained(
    data: TrainingImages, variant: str, execution: Any, changes: Mapping[str, Any]
) -> list[Learner]:
    """Four members after five epochs; the second enters after the first epoch, the third, which
    has trained alone before, after the second, and the fourth leaves for an epoch."""
    learners = [member(variant, index, data.device, **changes) for index in range(4)]
    trainer, alone = FusedTrainer(data, execution), FusedTrainer(data, "in_turn")
    alone.run_epoch(learners[2:3])
    alone.run_epoch(learners[2:3])
    for chosen in ([0, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3], [1, 3]):
        trainer.run_epoch([learners[index] for index in chosen])
    return learners


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("variant", "changes"), CASES, ids=lambda x: x if isinstance(x, str) else "-".join(x)
)
def test_members_become_what_they_become_alone(
    variant: str, changes: Mapping[str, Any], data: TrainingImages
) -> None:
    fused = trained(data, variant, "vectorised", changes)
    alone = trained(data, variant, "in_turn", changes)
    assert len({kind(learner) for learner in fused}) < len(fused)
    for one, other in zip(fused, alone, strict=True):
        assert one.step_count == other.step_count >= 5 * STEPS
        assert one.pop_metrics() == pytest.approx(other.pop_metrics(), rel=1e-8, abs=1e-8)
        assert largest_difference(one.state_dict(), other.state_dict()) < 1e-8
    assert largest_difference(fused[0].state_dict(), fused[1].state_dict()) > 1e-4


@pytest.mark.usefixtures("float64")
@EACH_FAMILY
def test_members_take_the_place_of_others(variant: str, data: TrainingImages) -> None:
    changes = {"free_bits": 0.0} if variant.startswith("vae") else {}
    fused, alone = (
        [member(variant, index, data.device, **changes) for index in (0, 2, 3, 1, 3)]
        for _ in range(2)
    )
    trainer = FusedTrainer(data, "vectorised")
    trainer.run_epoch(fused[:3])
    kept = dict(trainer._kept)
    trainer.run_epoch(fused[2:])  # one stays, as many come as go
    assert trainer._kept == kept
    for group in (alone[:3], alone[2:]):
        FusedTrainer(data, "in_turn").run_epoch(group)
    for one, other in zip(fused, alone, strict=True):
        assert one.pop_metrics() == pytest.approx(other.pop_metrics(), rel=1e-8, abs=1e-8)
        assert largest_difference(one.state_dict(), other.state_dict()) < 1e-8


@pytest.mark.usefixtures("float64")
@EACH_FAMILY
def test_members_see_the_binarised_images_that_they_see_alone(
    variant: str, data: TrainingImages
) -> None:
    data, found = replace(data, binarise=True), []
    changes = {"free_bits": 0.0} if variant.startswith("vae") else {}
    for execution in ("vectorised", "in_turn"):
        learners = [member(variant, index, data.device, **changes) for index in range(3)]
        FusedTrainer(data, "in_turn").run_epoch(learners[:1])  # is an epoch ahead from then on
        FusedTrainer(data, execution).run_epoch(learners)  # type: ignore[arg-type]
        found.append([learner.state_dict() for learner in learners])
    for fused, alone in zip(*found, strict=True):
        assert largest_difference(fused, alone) < 1e-8


def largest_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Between the tensors of two states, over what they have in common in shape."""
    pairs = zip(tree_flatten(dict(one))[0], tree_flatten(dict(other))[0], strict=True)
    return max(
        float((a - b).abs().max())
        for a, b in pairs
        if isinstance(a, Tensor) and a.shape == b.shape
    )


def test_in_single_precision_an_epoch_s_metrics_agree(variant: str, data: TrainingImages) -> None:
    changes = {"free_bits": 0.0} if variant.startswith("vae") else {}
    found = []
    for execution in ("vectorised", "in_turn"):
        learners = [member(variant, index, data.device, **changes) for index in range(3)]
        FusedTrainer(data, execution).run_epoch(learners)  # type: ignore[arg-type]
        found.append([learner.pop_metrics() for learner in learners])
    for fused, alone in zip(*found, strict=True):
        assert fused == pytest.approx(alone, rel=0.01, abs=0.01)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("execution", ["vectorised", "in_turn"])
@EACH_FAMILY
def test_a_member_that_diverges_leaves_its_neighbours_as_they_are(
    variant: str, execution: Any, data: TrainingImages
) -> None:
    states = []
    for lr in (1e-3, 9.0):
        learners = [member(variant, index, data.device, latent_dim=4) for index in (0, 0, 1)]
        for parameter in learners[0].updates[0].parameters[:1] if lr > 1 else []:
            parameter.data.fill_(math.nan)
        for _ in range(2):
            FusedTrainer(data, execution).run_epoch(learners)
        states.append([learner.state_dict() for learner in learners])
    calm, beside = states
    assert not all(map(math.isfinite, learners[0].pop_metrics().values()))
    for one, other in zip(calm[1:], beside[1:], strict=True):
        assert largest_difference(one, other) == 0.0


def test_different_structures_are_kept_apart(data: TrainingImages) -> None:
    learners = [
        member("vae-mlp", 0, data.device, free_bits=0.0),
        member("vae-mlp", 1, data.device, free_bits=0.0),
        member("vae-mlp", 1, data.device),
        member("vae-mlp", 2, data.device, free_bits=0.0, hidden=(16, 16)),
        member("vae-conv", 0, data.device, free_bits=0.0),
        member("gan-mlp", 0, data.device),
    ]
    trainer = FusedTrainer(data, "vectorised")
    sizes = [len(group) for group in trainer.groups(learners)]
    assert sizes == [2, 1, 1, 1, 1]
    trainer.run_epoch(learners)
    assert {learner.step_count for learner in learners} == {STEPS}


@EACH_FAMILY
def test_the_faster_way_is_measured_and_leaves_no_trace(
    variant: str, data: TrainingImages
) -> None:
    changes = {"free_bits": 0.0} if variant.startswith("vae") else {}
    learners = [member(variant, index, data.device, **changes) for index in range(2)]
    before = [learner.clone().state_dict() for learner in learners]
    trainer = FusedTrainer(data, "auto")
    choice = trainer.choice(learners)
    assert "ms in turn" in choice.reason
    assert trainer.choice(learners) is choice
    for learner, state in zip(learners, before, strict=True):
        assert largest_difference(learner.state_dict(), state) == 0.0
        assert learner.pop_metrics() == {}


def test_what_vmap_cannot_do_runs_in_turn_and_says_why(data: TrainingImages) -> None:
    learners = [member("autoencoder-mlp", 0, data.device) for _ in range(2)]
    for learner in learners:
        _spoil(learner)
    trainer = FusedTrainer(data, "auto")
    choice = trainer.choice(learners)
    assert choice.execution == "in_turn"
    assert "cannot be vectorised" in choice.reason
    trainer.run_epoch(learners)
    assert learners[0].step_count == STEPS


def _spoil(learner: Learner) -> None:
    """Give the model a loss with control flow on data, which no vmap takes."""
    model_type = type(learner.model)

    class Spoilt(model_type):  # type: ignore[misc, valid-type]
        def objectives(self) -> tuple[Objective, ...]:
            (objective,) = super().objectives()

            def loss(*args: Any) -> Any:
                found, metrics = objective.loss(*args)
                return (found if found.detach().item() > 0 else -found), metrics

            return (replace(objective, loss=loss),)

    learner.model = Spoilt(learner.model.config, SPEC)


@pytest.mark.parametrize("execution", ["vectorised", "in_turn"])
def test_all_members_in_bfloat16_learn_too(
    variant: str, execution: Execution, data: TrainingImages
) -> None:
    changes = {"free_bits": 0.0} if variant.startswith("vae") else {}
    precisions: tuple[Precision, Precision] = ("fp32", "bf16")
    found = []
    for precision in precisions:
        learners = [member(variant, 0, data.device, precision, **changes) for _ in range(2)]
        FusedTrainer(data, execution).run_epoch(learners)
        found.append(learners[0].pop_metrics())
    assert found[1] == pytest.approx(found[0], rel=0.1, abs=0.1)
    assert found[1] != found[0]


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_compiled_members_become_what_they_become_alone(data: TrainingImages) -> None:
    device = data.device
    fused, alone = (
        [member("gan-conv", index, device, compiled=compiled) for index in range(2)]
        for compiled in (True, False)
    )
    FusedTrainer(data, "vectorised").run_epoch(fused)
    FusedTrainer(data, "in_turn").run_epoch(alone)
    for one, other in zip(fused, alone, strict=True):
        assert one.pop_metrics() == pytest.approx(other.pop_metrics(), rel=1e-8)
        assert largest_difference(one.state_dict(), other.state_dict()) < 1e-8


# -- to the last bit ------------------------------------------------------------------------------
def plain(variant: str, index: int, wider: int = 0) -> Learner:
    """One of several learners of equal settings but for the seed and, on request, the widths."""
    family, settings = VARIANTS[variant]
    module = gen_models.family(family)
    model = module.Model(replace(module.Config(), **settings), SPEC)
    widths = {name: getattr(model.config, name) + wider for name in model.widths}
    model = module.Model(replace(model.config, **widths), SPEC)
    return Learner(model, module.Optim(), seed=index, steps_per_epoch=STEPS)


@pytest.mark.parametrize("execution", ["in_turn", "vectorised"])
def test_values_do_not_depend_on_the_group_to_the_last_bit(
    variant: str, execution: Execution
) -> None:
    """On a CPU: a learner alone, with others in a changing group, with a wider one, each epoch by
    another trainer, as after a restart."""
    data = TrainingImages(some_pixels(16 * STEPS + 10, torch.device("cpu")), 16, drop_last=True)
    config = plain(variant, 0, wider=6).model
    widest = {name: getattr(config.config, name) for name in config.widths}
    groups = {
        "alone": [[]] * 3,
        "others": [[1], [1, 2, 3], [2]],
        "wider": [[], [1], [4]],
    }
    digests = set()
    for groups_by_epoch in groups.values():
        learners = [plain(variant, index, wider=6 * (index == 4)) for index in range(5)]
        learners[4].step_count = 2 * STEPS  # it comes later
        for others in groups_by_epoch:
            trainer = FusedTrainer(data, execution, widest=widest)
            trainer.run_epoch([learners[0], *(learners[index] for index in others)])
        learner = learners[0]
        digests.add((weights_digest(learner.state_dict()), str(learner.pop_metrics())))
    assert len(digests) == 1
    if execution == "in_turn":
        assert digests.pop()[0] == _trained_by_itself(data, plain(variant, 0))


def _trained_by_itself(data: TrainingImages, learner: Learner) -> str:
    for epoch in (1, 2, 3):
        for batch, share in data.batches(learner.seed, epoch):
            learner.step(batch, share)
    return weights_digest(learner.state_dict())


class KeptChoices:
    """Choices that another trainer has made before."""

    def __init__(self, *choices: Choice) -> None:
        self.choices = list(choices)
        self.offered: list[Choice] = []

    def find(self, structure: str) -> Choice | None:
        return self.choices[0] if self.choices else None

    def keep(self, structure: str, choice: Choice) -> Choice:
        self.offered.append(choice)
        return Choice("vectorised", "another was first")


def test_a_choice_that_was_made_before_is_not_measured_again(data: TrainingImages) -> None:
    kept = KeptChoices(Choice("vectorised", "as before"))
    learner = member("vae-mlp", 0, data.device)
    choice = FusedTrainer(data, at_once=4, choices=kept).choice([learner])
    assert choice.reason == "as before" and kept.offered == []


def test_of_two_trainers_that_measure_at_a_time_the_first_decides(data: TrainingImages) -> None:
    kept = KeptChoices()
    learner = member("vae-mlp", 0, data.device)
    choice = FusedTrainer(data, at_once=3, choices=kept).choice([learner])
    assert choice.reason == "another was first"
    assert "a step of 3 takes" in kept.offered[0].reason
    assert learner.step_count == 0 and learner.pop_metrics() == {}


def test_a_structure_has_one_name_at_every_position(data: TrainingImages) -> None:
    learners = [member("gan-mlp", index, data.device) for index in (0, 1)]
    FusedTrainer(data, "in_turn").run_epoch(learners[:1])
    assert len({structure_name(learner) for learner in learners}) == 1
    other = member("gan-mlp", 0, data.device, loss="wasserstein")
    assert structure_name(other) != structure_name(learners[0])
