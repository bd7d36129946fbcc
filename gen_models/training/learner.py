"""The learner: the training state of one trial, for one objective or several.

A step does not wait for the device: metrics are summed there and read once an epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Generator, Tensor, nn

from gen_models.core.contract import Adam, Draws, Model, Objective, adams
from gen_models.core.data import Batch
from gen_models.core.networks import after_update_modules, build_networks
from gen_models.core.rng import global_seed, seeded
from gen_models.training.accumulator import Meter
from gen_models.training.batches import Share
from gen_models.training.cuda_graphs import Due, StepGraphs
from gen_models.training.distributed import rank_and_world, share_batch_norm, wrap
from gen_models.training.draws import DrawnAhead
from gen_models.training.optimizer import AdamW
from gen_models.training.precision import InPrecision, Precision


def initial_networks(model: Model, seed: int, device: torch.device | str) -> dict[str, nn.Module]:
    """Build the networks with which a learner of this seed begins, in training mode."""
    with global_seed(seed, "init"):
        return build_networks(model, device)


class Learner:
    """Networks, their optimizers, their moving averages, and the position in training.

    `optim`: the family's `Optim`. `steps_per_epoch` converts the position to epochs, for
    schedules. `precision`: of the networks' matrix products and convolutions; parameters and sums
    are always in torch's default dtype. `compiled`: run the losses through `torch.compile`.
    `graphs`: record the steps as CUDA graphs, if this is the only worker and on a GPU.

    The processes of a `torch.distributed` group are one learner together: each gets its `Share` of
    every batch.
    """

    def __init__(
        self,
        model: Model,
        optim: Any,
        *,
        seed: int,
        steps_per_epoch: int,
        device: torch.device | str = "cpu",
        precision: Precision = "fp32",
        compiled: bool = False,
        graphs: bool = False,
    ) -> None:
        self.model = model
        self.optim = optim
        self.seed = seed
        self.steps_per_epoch = steps_per_epoch
        self.device = torch.device(device)
        self.precision: Precision = precision
        self.compiled, self.graphs = compiled, graphs
        self.step_count = 0
        self.steps = torch.zeros((), dtype=torch.float64, device=self.device)
        """`step_count` on the device, ()."""
        self.networks = share_batch_norm(initial_networks(model, seed, self.device))
        self.wrapped = wrap(self.networks)
        objectives = model.objectives()
        optimizers = adams(optim, objectives)
        self.updates = [Update(self, o, optimizers[o.name]) for o in objectives]
        self._generator = Generator(self.device)
        self._drawn = DrawnAhead(self.draws_of_block, steps_per_epoch)
        for network in self.networks.values():
            network.train()
        record = graphs and self.device.type == "cuda" and rank_and_world()[1] == 1
        self._recorded = StepGraphs(self._run, self._tensors) if record else None

    def step(self, batch: Batch, share: Share | None = None) -> None:
        """Run one step of every objective that is due.

        `share`: which rows of the global batch these are; by default all.
        """
        share = share or Share(0, batch.num, batch.num)
        draws = self.draws(share.num, self.step_count)
        draws = {name: numbers[share.rows] for name, numbers in draws.items()}
        due = tuple(update.is_due(self.step_count) for update in self.updates)
        if self._recorded:
            self._recorded(batch, draws, due)
        else:
            self._run(batch, draws, due, share)
        self.step_count += 1

    def _run(self, batch: Batch, draws: Draws, due: Due, share: Share | None = None) -> None:
        """Run the objectives that are due. All values that change between steps are tensors, so
        that the step can be recorded."""
        share = share or Share(0, batch.num, batch.num)
        epoch = (self.steps / self.steps_per_epoch).to(batch.images.dtype)
        for update, is_due in zip(self.updates, due, strict=True):
            if is_due:
                update(batch, draws, epoch, share)
        self.steps += 1

    def _tensors(self) -> list[Tensor]:
        """List the tensors that a step changes."""
        own = [t for network in self.networks.values() for t in network.state_dict().values()]
        return [self.steps, *own, *(t for update in self.updates for t in update.tensors())]

    def draws(self, num: int, step_count: int) -> Draws:
        """Return the random numbers of the step after `step_count` steps, over `num` images."""
        return self._drawn.of(num, step_count)

    def draws_of_block(self, rows: int, first: int) -> Draws:
        """Draw those of a block of steps after the first `first` ones, over `rows` images in
        all."""
        return self.model.draws(rows, seeded(self._generator, self.seed, "draws", first, rows))

    def clone(self) -> Learner:
        """Return another learner in the same state."""
        other = Learner(
            self.model,
            self.optim,
            seed=self.seed,
            steps_per_epoch=self.steps_per_epoch,
            device=self.device,
            precision=self.precision,
            compiled=self.compiled,
            graphs=self.graphs,
        )
        other.load_state_dict(self.state_dict())
        return other

    @property
    def epoch(self) -> float:
        """Position in training in epochs, fractional."""
        return self.step_count / self.steps_per_epoch

    def pop_metrics(self) -> dict[str, float]:
        """Return the means of metrics over all images of all workers since the last call. Waits
        for the device."""
        return {k: v for update in self.updates for k, v in update.meter.pop().items()}

    def has_finite_parameters(self) -> bool:
        """Return whether all trained parameters are finite numbers. Waits for the device once."""
        finite = [p.isfinite().all() for update in self.updates for p in update.parameters]
        return bool(torch.stack(finite).all())

    def sampling_networks(self) -> dict[str, nn.Module]:
        """Return the networks to sample from and to validate, in evaluation mode.

        Trained networks are copies, of their moving averages where these are kept. Networks that
        no objective trains are not copied, so that what is fitted into them is kept.
        """
        averages = {k: v for update in self.updates for k, v in update.averages.items()}
        chosen = {k: averages.get(k, network) for k, network in self.networks.items()}
        trained = {name for update in self.updates for name in update.objective.networks}
        copies = {k: deepcopy(n) if k in trained else n for k, n in chosen.items()}
        return {k: network.eval().requires_grad_(False) for k, network in copies.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which training continues exactly. Random numbers are functions of
        seed and position, so it holds no generator's state."""
        return {
            "seed": self.seed,
            "step_count": self.step_count,
            "networks": {k: network.state_dict() for k, network in self.networks.items()},
            "averages": {
                k: average.state_dict()
                for update in self.updates
                for k, average in update.averages.items()
            },
            "optimizers": {u.objective.name: u.optimizer.state_dict() for u in self.updates},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the `state_dict` of a learner of the same model and optimizers."""
        self.seed, self.step_count = state["seed"], state["step_count"]
        self.steps.fill_(self.step_count)
        self._drawn.forget()
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        for update in self.updates:
            update.optimizer.load_state_dict(state["optimizers"][update.objective.name])
            for name, average in update.averages.items():
                average.load_state_dict(state["averages"][name])


class Update:
    """One objective of a learner with its optimizer and moving averages."""

    def __init__(self, learner: Learner, objective: Objective, adam: Adam) -> None:
        self.objective = objective
        self.learner = learner
        own = {name: learner.networks[name] for name in objective.networks}
        others = [n for name, n in learner.networks.items() if name not in own]
        self.parameters = [p for network in own.values() for p in network.parameters()]
        self.frozen = [p for network in others for p in network.parameters()]
        # Only updated networks are called through DDP, which expects a gradient of each parameter.
        called = {**learner.networks, **{name: learner.wrapped[name] for name in own}}
        self.precision = InPrecision(learner.device, learner.precision)
        self.networks = self.precision.networks(called)
        self.optimizer = AdamW(self.parameters, adam)
        self.meter = Meter()
        self.after_update = after_update_modules(own.values())
        self.averages = deepcopy(own) if adam.ema_decay else {}
        self._averaged = [v for n in self.averages.values() for v in n.state_dict().values()]
        self._sources = [v for name in self.averages for v in own[name].state_dict().values()]
        self._loss = torch.compile(objective.loss) if learner.compiled else objective.loss

    def is_due(self, step_count: int) -> bool:
        """Return whether the objective runs on the step after `step_count` steps."""
        return (step_count + 1) % self.objective.period == 0

    def tensors(self) -> list[Tensor]:
        """List the tensors that a step changes besides the networks."""
        return [*self.optimizer.tensors(), *self._averaged, *self.meter.tensors()]

    def __call__(self, batch: Batch, draws: Draws, epoch: Tensor, share: Share) -> None:
        for parameter in self.frozen:
            parameter.requires_grad_(False)
        for parameter in self.parameters:
            parameter.requires_grad_(True)
            parameter.grad = None
        with self.precision.loss():
            loss, metrics = self._loss(self.networks, batch, draws, epoch)
        # DDP averages over workers, but their numbers of rows may differ.
        world = rank_and_world()[1]
        if share.size * world != share.num:
            loss = loss * (share.size * world / share.num)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step([_gradient(p) for p in self.parameters], epoch)
        self.meter.add(metrics, share.size)
        with torch.no_grad():
            for module in self.after_update:
                module.after_update()
            self._average()

    def _average(self) -> None:
        """Update the moving averages; at first faster than `ema_decay`, which would keep the
        initial weights for long."""
        if not self.averages:
            return
        num = torch.floor_divide(self.learner.steps, self.objective.period)
        decay = ((1 + num) / (10 + num)).clamp(max=self.optimizer.settings.ema_decay)
        for average, source in zip(self._averaged, self._sources, strict=True):
            if average.is_floating_point():
                average.lerp_(source, (1 - decay).to(average.dtype))
            else:
                average.copy_(source)


def _gradient(parameter: Tensor) -> Tensor:
    """Return the gradient; 0 if the loss does not depend on the parameter."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
