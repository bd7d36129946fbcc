"""The conformance suite of families: what a family promises, as tests that a subclass inherits.

A package that supplies a family tests it with a file of its own:

    from gen_models.testing import FamilyConformance

    class TestWAE(FamilyConformance):
        family = "wae"  # the name of its entry point
        variants = {"small": {"hidden": (32,), "latent_dim": 4}}  # fields of its Config, by label
        # shapes = ((1, 28, 28),)  # data that it can learn from, if not all of the default ones

The tests know a family by its contract alone (`gen_models.core.contract`). Each runs for every
variant, on the CPU and on a GPU if there is one; variants should be small, as a test trains some
thirty steps. Optional capabilities (`Reconstructs`, `Encodes`, …) are tested for the models that
declare them. Needs pytest; set CUBLAS_WORKSPACE_CONFIG=:4096:8 where there is a GPU.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from gen_models.core.checkpoint import (
    load_checkpoint,
    load_sampler,
    restore_learner,
)
from gen_models.core.checksums import SUMS_FILE
from gen_models.core.config import from_dict
from gen_models.core.contract import (
    Adam,
    BoundsLikelihood,
    Encodes,
    FitsSampler,
    Objective,
    Reconstructs,
    adams,
    is_conditional,
)
from gen_models.core.data import Batch, DataSpec
from gen_models.core.errors import DamagedError, InputError
from gen_models.core.families import family
from gen_models.core.networks import build_networks
from gen_models.core.sampling import sample
from gen_models.fused.trainer import Execution, FusedTrainer
from gen_models.testing.examples import example_batch
from gen_models.testing.states import assert_equal_states
from gen_models.testing.suite import (
    WORLDS,
    Case,
    FamilySuite,
    for_models,
    rows_of,
    train_case,
    worker_file,
)
from gen_models.training.batches import Share, TrainingImages
from gen_models.training.learner import Learner


class FamilyConformance(FamilySuite):
    """Tests of one family. Subclasses set `family` and `variants`."""

    # Config and optimizers

    def test_configs_survive_json(self, variant: str) -> None:
        optim = family(self.family).Optim()
        for config in (self.config(variant), optim):
            content = json.loads(json.dumps(asdict(config)))
            assert from_dict(type(config), content) == config

    def test_config_refuses_unknown_fields(self) -> None:
        with pytest.raises(InputError, match="no_such_field"):
            from_dict(family(self.family).Config, {"no_such_field": 1})

    def test_each_objective_has_an_optimizer(self, variant: str) -> None:
        optim, objectives = family(self.family).Optim(), self.model(variant).objectives()
        settings = adams(optim, objectives)
        assert settings.keys() == {objective.name for objective in objectives}
        assert all(isinstance(adam, Adam) for adam in settings.values())

    # Objectives and draws

    def test_objectives_update_every_trained_network_once(self, variant: str) -> None:
        model = self.model(variant)
        updated = [name for objective in model.objectives() for name in objective.networks]
        networks = build_networks(model)
        assert sorted(updated) == sorted(n for n in networks if list(networks[n].parameters()))

    def test_losses_are_finite_scalars_and_reach_their_networks_alone(
        self, variant: str, device: str
    ) -> None:
        model = self.model(variant)
        networks, rows = build_networks(model, device), rows_of(model, 16)
        batch = example_batch(rows, self.spec, device=device)
        for objective in model.objectives():
            for name, network in networks.items():
                network.requires_grad_(name in objective.networks)
                network.zero_grad()
            draws = model.draws(rows, Generator(device).manual_seed(0))
            loss, metrics = objective.loss(networks, batch, draws, 0.0)
            assert loss.shape == () and torch.isfinite(loss)
            assert metrics and all(m.shape == () and torch.isfinite(m) for m in metrics.values())
            loss.backward()
            reached = {n for n, net in networks.items() if any(map(_reached, net.parameters()))}
            assert reached == set(objective.networks)

    def test_losses_use_no_randomness_but_their_draws(
        self, variant: str, device: str, deterministic: None
    ) -> None:
        model = self.model(variant)
        networks, rows = build_networks(model, device), rows_of(model, 16)
        batch = example_batch(rows, self.spec, device=device)
        for objective in model.objectives():
            draws = model.draws(rows, Generator(device).manual_seed(0))
            losses = []
            for seed in (1, 2):
                torch.manual_seed(seed)
                losses.append(objective.loss(networks, batch, draws, 0.0)[0])
            assert torch.equal(*losses)

    def test_draws_are_rows_of_a_batch_from_their_generator(
        self, variant: str, device: str
    ) -> None:
        model = self.model(variant)
        first, again, other = (
            model.draws(12, Generator(device).manual_seed(seed)) for seed in (3, 3, 4)
        )
        for name, value in first.items():
            assert len(value) == 12 and value.device.type == torch.device(device).type
            assert torch.equal(value, again[name]) and not torch.equal(value, other[name])

    # Training

    def test_each_update_lowers_its_own_loss(self, variant: str, device: str) -> None:
        """On a batch and draws that stay, while the networks of other objectives stay too: so it
        holds for adversaries as well."""
        learner = self.learner(variant, device)
        rows = rows_of(learner.model, 32)
        batch = example_batch(rows, self.spec, device=device)
        draws = learner.model.draws(rows, Generator(device).manual_seed(0))
        epoch, share = torch.zeros((), device=device), Share(0, rows, rows)
        for update in learner.updates:
            before = _loss(update.objective, learner, batch, draws)
            for _ in range(30):
                update(batch, draws, epoch, share)
            assert _loss(update.objective, learner, batch, draws) < before

    def test_thirty_steps_stay_finite_and_change_every_trained_network(
        self, variant: str, device: str
    ) -> None:
        learner, start = self.learner(variant, device), self.learner(variant, device)
        batch = example_batch(rows_of(learner.model, 64), self.spec, device=device)
        for _ in range(30):
            learner.step(batch)
        assert all(math.isfinite(value) for value in learner.pop_metrics().values())
        for name, network in learner.networks.items():
            parameters = list(network.parameters())
            assert all(bool(torch.isfinite(p).all()) for p in parameters)
            pairs = zip(parameters, start.networks[name].parameters(), strict=True)
            assert not parameters or any(not torch.equal(a, b) for a, b in pairs)

    def test_learners_leave_the_global_generators_alone(self, variant: str, device: str) -> None:
        def random_numbers() -> list[Tensor]:
            return [torch.rand(3), torch.rand(3, device=device)]

        torch.manual_seed(0)
        expected = random_numbers()
        torch.manual_seed(0)
        learner = self.learner(variant, device)
        learner.step(example_batch(rows_of(learner.model, 8), self.spec, device=device))
        assert all(map(torch.equal, random_numbers(), expected))

    def test_learners_trained_as_one_become_what_they_become_alone(
        self, variant: str, device: str, float64: None
    ) -> None:
        module, states = family(self.family), []
        rows = rows_of(self.model(variant), 16)
        pixels = example_batch(2 * rows, self.spec, device=device)
        data = TrainingImages(Batch(pixels.images.double(), pixels.labels), rows, drop_last=True)
        executions: tuple[Execution, Execution] = ("vectorised", "in_turn")
        for execution in executions:
            learners = [
                Learner(
                    module.Model(self.member_config(variant, index), self.spec),
                    _with_own_rates(module.Optim(), index),
                    seed=index,
                    steps_per_epoch=data.steps_per_epoch,
                    device=device,
                )
                for index in range(3)
            ]
            trainer = FusedTrainer(data, execution)
            for _ in range(2):
                trainer.run_epoch(learners)
            states.append([learner.state_dict() for learner in learners])
        for fused, alone in zip(*states, strict=True):
            torch.testing.assert_close(fused, alone, rtol=1e-8, atol=1e-8)

    def test_two_and_four_workers_compute_what_one_does(
        self, variant: str, workers: Path, float64: None
    ) -> None:
        """On the same global batches; batch norm is over the rows of all workers."""
        case = Case(f"{self.family}-{variant}", self.family, self.config(variant), self.spec)
        expected = train_case(case, 0, 1)
        for world in WORLDS:
            first, *others = (
                torch.load(worker_file(workers, case.name, world, rank), weights_only=True)
                for rank in range(world)
            )
            for other in others:
                assert_equal_states(first, other)
            torch.testing.assert_close(first, expected, rtol=1e-8, atol=1e-8)

    # Sampling

    def test_samples_have_the_data_s_shape_and_range(
        self, variant: str, shape: tuple[int, ...], device: str
    ) -> None:
        try:
            model = self.model(variant, DataSpec(shape, self.spec.num_classes))
            networks = self.networks(model, device)
        except InputError:
            assert shape != self.spec.shape
            pytest.skip("the model refuses data of this shape")
        images = sample(model, networks, 5, 0, device)
        assert images.shape == (5, *shape)
        assert float(images.min()) >= 0.0 and float(images.max()) <= 1.0

    def test_samples_follow_from_their_position(self, variant: str, device: str) -> None:
        model = self.model(variant)
        networks = self.networks(model, device)
        many, few = (sample(model, networks, num, 0, device) for num in (300, 7))
        torch.testing.assert_close(many[:7], few)
        assert not torch.equal(few, sample(model, networks, 7, 1, device))

    def test_a_sample_does_not_depend_on_those_beside_it(self, variant: str, device: str) -> None:
        """It would if batch norm were in training mode."""
        learner = self.learner(variant, device)
        batch = example_batch(rows_of(learner.model, 16), self.spec, device=device)
        for _ in range(3):
            learner.step(batch)
        networks = learner.sampling_networks()
        assert not any(m.training for network in networks.values() for m in network.modules())
        many, one = (sample(learner.model, networks, num, 0, device) for num in (20, 1))
        torch.testing.assert_close(one, many[:1])

    @torch.no_grad()
    def test_labels_matter_to_class_conditional_models_alone(
        self, variant: str, device: str, deterministic: None
    ) -> None:
        model = self.model(variant)
        networks, batch = self.networks(model, device), example_batch(5, self.spec, device=device)
        noise = torch.randn(5, model.noise_dim, device=device)
        labels = (batch.labels, batch.labels + 1)
        conditional = is_conditional(model)
        generated = [model.generate(networks, noise, each) for each in labels]
        assert torch.equal(*generated) is not conditional
        if isinstance(model, Reconstructs):
            batches = [Batch(batch.images, each) for each in labels]
            again = [model.reconstruct(networks, each) for each in batches]
            assert torch.equal(*again) is not conditional

    @for_models(is_conditional)
    def test_data_without_labels_are_refused_by_class_conditional_models(
        self, variant: str
    ) -> None:
        with pytest.raises(InputError, match="conditional"):
            self.model(variant, DataSpec(self.spec.shape)).networks()

    # Validation and optional capabilities

    def test_validation_metrics_are_finite_scalars_and_repeatable(
        self, variant: str, device: str, deterministic: None
    ) -> None:
        model = self.model(variant)
        networks, batch = self.networks(model, device), example_batch(9, self.spec, device=device)
        with torch.no_grad():
            first, again = (
                model.validate(networks, batch, model.draws(9, Generator(device).manual_seed(0)))
                for _ in range(2)
            )
        assert all(value.shape == () and torch.isfinite(value) for value in first.values())
        assert_equal_states(first, again)

    @for_models(lambda model: isinstance(model, Reconstructs))
    @torch.no_grad()
    def test_reconstructions_have_the_data_s_shape_and_range(
        self, variant: str, device: str
    ) -> None:
        model = self.model(variant)
        batch = example_batch(5, self.spec, device=device)
        images = model.reconstruct(self.networks(model, device), batch)
        assert images.shape == batch.images.shape
        assert float(images.min()) >= 0.0 and float(images.max()) <= 1.0

    @for_models(lambda model: isinstance(model, Encodes))
    @torch.no_grad()
    def test_codes_are_a_vector_an_image(
        self, variant: str, device: str, deterministic: None
    ) -> None:
        model = self.model(variant)
        networks, batch = self.networks(model, device), example_batch(5, self.spec, device=device)
        codes = model.encode(networks, batch)
        assert codes.shape == (5, codes[0].numel()) and bool(torch.isfinite(codes).all())
        assert torch.equal(codes, model.encode(networks, batch))
        assert not torch.equal(codes[0], codes[1])

    @for_models(lambda model: isinstance(model, BoundsLikelihood))
    @torch.no_grad()
    def test_log_terms_are_finite_and_a_number_an_image(self, variant: str, device: str) -> None:
        model = self.model(variant)
        networks, batch = self.networks(model, device), example_batch(5, self.spec, device=device)
        terms = model.log_terms(networks, batch)
        noise = torch.randn(3, 5, model.noise_dim, device=device)
        for values in terms(noise):
            assert values.shape == (3, 5) and bool(torch.isfinite(values).all())
            torch.testing.assert_close(terms(noise[:1])[0], terms(noise)[0][:1])

    @for_models(lambda model: isinstance(model, FitsSampler))
    def test_fitting_the_sampler_changes_the_samples(self, variant: str, device: str) -> None:
        pytest.importorskip("sklearn")
        model = self.model(variant)
        networks, batch = self.networks(model, device), example_batch(64, self.spec, device=device)
        before = sample(model, networks, 6, 0, device)
        with torch.no_grad():
            model.fit_sampler(networks, [batch], 0)
        after = sample(model, networks, 6, 0, device)
        assert bool(torch.isfinite(after).all()) and not torch.equal(before, after)

    # Checkpoints and export

    def test_checkpoints_give_the_same_samples_and_continue_the_same(
        self, variant: str, device: str, tmp_path: Path, deterministic: None
    ) -> None:
        learner = self.learner(variant, device)
        batch = example_batch(rows_of(learner.model, 64), self.spec, device=device)
        for _ in range(5):
            learner.step(batch)
        if isinstance(learner.model, FitsSampler):
            pytest.importorskip("sklearn")
            with torch.no_grad():
                learner.model.fit_sampler(learner.sampling_networks(), [batch], 0)
        self.save(tmp_path, learner)

        loaded = load_checkpoint(tmp_path)
        assert loaded.family == self.family and loaded.model.spec == self.spec
        networks = {name: network.to(device) for name, network in loaded.networks.items()}
        expected = sample(learner.model, learner.sampling_networks(), 6, 2, device)
        assert torch.equal(sample(loaded.model, networks, 6, 2, device), expected)

        other = self.learner(variant, device, seed=99)
        restore_learner(tmp_path, other)
        for _ in range(5):
            learner.step(batch)
            other.step(batch)
        assert_equal_states(learner.state_dict(), other.state_dict())

    def test_broken_checkpoints_are_named(self, variant: str, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no checkpoint"):
            load_checkpoint(tmp_path)
        self.save(tmp_path, self.learner(variant, "cpu"))
        weights = tmp_path / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:200])
        with pytest.raises(DamagedError, match="damaged"):
            load_checkpoint(tmp_path)
        (tmp_path / SUMS_FILE).unlink()  # as in a checkpoint of an older version
        with pytest.raises(DamagedError, match="a broken checkpoint"):
            load_checkpoint(tmp_path)

    def test_samplers_can_be_exported(self, variant: str, tmp_path: Path) -> None:
        self.save(tmp_path, self.learner(variant, "cpu"))
        sampler, in_features = load_sampler(tmp_path)
        exported = torch.export.export(
            sampler,
            (torch.zeros(2, in_features),),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
        inputs = torch.randn(7, in_features)
        if is_conditional(self.model(variant)):
            inputs[:, -1] = torch.arange(7) % self.spec.num_classes
        torch.testing.assert_close(exported.module()(inputs), sampler(inputs))


def _reached(parameter: nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)


def _loss(
    objective: Objective, learner: Learner, batch: Batch, draws: dict[str, Tensor]
) -> Tensor:
    return objective.loss(learner.networks, batch, draws, 0.0)[0].detach()


def _with_own_rates(optim: Any, index: int) -> Any:
    """Return `optim` with other settings for each `index`, in each of its optimizers."""
    if not isinstance(optim, Adam):
        parts = {f.name: _with_own_rates(getattr(optim, f.name), index) for f in fields(optim)}
        return replace(optim, **parts)
    return replace(optim, lr=optim.lr * (1 + 0.3 * index), ema_decay=0.9 + 0.01 * index)
