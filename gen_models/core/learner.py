"""The learner: one trial's training state. One loop serves one objective and several.

A step never waits for the device: metrics are summed there and read once an epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Generator, Tensor, nn

from gen_models.core.batches import Share
from gen_models.core.contract import Adam, AfterUpdate, Draws, Metrics, Model, Objective, adams
from gen_models.core.distributed import rank_and_world, sum_over_workers, wrap
from gen_models.core.randomness import global_seed, seeded


class Learner:
    """Networks, their optimizers, their averages, and the position in training.

    `steps_per_epoch` turns the position into epochs, for schedules. Several processes in a
    `torch.distributed` group make one learner: each is given its `Share` of every batch.
    """

    def __init__(
        self,
        model: Model,
        optim: Any,
        *,
        seed: int,
        steps_per_epoch: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.model = model
        self.seed = seed
        self.steps_per_epoch = steps_per_epoch
        self.device = torch.device(device)
        self.step_count = 0
        with global_seed(seed, "init"):
            networks = model.networks()
        self.networks = {name: network.to(self.device) for name, network in networks.items()}
        self.wrapped = wrap(self.networks)
        objectives = model.objectives()
        optimizers = adams(optim, objectives)
        self._updates = [_Update(self, o, optimizers[o.name]) for o in objectives]
        self._generator = Generator(self.device)
        self._sums: dict[str, Tensor] = {}
        self._rows: dict[str, int] = {}
        for network in self.networks.values():
            network.train()

    def step(self, batch: Tensor, share: Share | None = None) -> None:
        """One step of every objective that is due, on images (N, C, H, W) in [0, 1].

        `share` says which rows of the global batch these are; without it, all of them.
        """
        share = share or Share(0, len(batch), len(batch))
        generator = seeded(self._generator, self.seed, "draws", self.step_count)
        draws = {k: v[share.rows] for k, v in self.model.draws(share.num, generator).items()}
        for update in self._updates:
            if (self.step_count + 1) % update.objective.period == 0:
                metrics = update(batch, draws, self.step_count, self.epoch, share)
                self._keep(metrics, share.size)
        self.step_count += 1

    @property
    def epoch(self) -> float:
        """The position in training, in epochs."""
        return self.step_count / self.steps_per_epoch

    def _keep(self, metrics: Mapping[str, Tensor], rows: int) -> None:
        for name, value in metrics.items():
            value = value.detach().double() * rows
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._rows[name] = self._rows.get(name, 0) + rows

    def pop_metrics(self) -> dict[str, float]:
        """Means since the last call over all images of all workers. Waits for the device."""
        if not self._sums:
            return {}
        names = sorted(self._sums)
        sums = torch.stack([self._sums[name] for name in names])
        rows = torch.tensor([self._rows[name] for name in names], device=sums.device)
        sums, rows = sum_over_workers(torch.stack([sums, rows.double()]))
        self._sums, self._rows = {}, {}
        return dict(zip(names, (sums / rows).tolist(), strict=True))

    def sampling_networks(self) -> dict[str, nn.Module]:
        """The networks to sample from and to validate, in evaluation mode: copies, averaged
        where an average is kept; and themselves what no objective trains, so that what is
        fitted into them stays."""
        averages = {k: v for update in self._updates for k, v in update.averages.items()}
        chosen = {k: averages.get(k, network) for k, network in self.networks.items()}
        trained = {name for update in self._updates for name in update.objective.networks}
        copies = {k: deepcopy(n) if k in trained else n for k, n in chosen.items()}
        return {k: network.eval().requires_grad_(False) for k, network in copies.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on as if nothing had happened. Random numbers are functions
        of seed and position, so these two are their state."""
        return {
            "seed": self.seed,
            "step_count": self.step_count,
            "networks": {k: network.state_dict() for k, network in self.networks.items()},
            "averages": {
                k: average.state_dict()
                for update in self._updates
                for k, average in update.averages.items()
            },
            "optimizers": {u.objective.name: u.optimizer.state_dict() for u in self._updates},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict` of a learner of the same model and optimizers."""
        self.seed, self.step_count = state["seed"], state["step_count"]
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        for update in self._updates:
            for name, average in update.averages.items():
                average.load_state_dict(state["averages"][name])
            update.optimizer.load_state_dict(state["optimizers"][update.objective.name])


class _Update:
    """One objective with its optimizer: freeze the others, step, average."""

    def __init__(self, learner: Learner, objective: Objective, adam: Adam) -> None:
        self.objective = objective
        own = {name: learner.networks[name] for name in objective.networks}
        others = [n for name, n in learner.networks.items() if name not in own]
        self.parameters = [p for network in own.values() for p in network.parameters()]
        self.frozen = [p for network in others for p in network.parameters()]
        # DDP only around what is updated: it expects a gradient for all that runs through it.
        self.networks = {**learner.networks, **{name: learner.wrapped[name] for name in own}}
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=adam.lr,
            betas=adam.betas,
            eps=adam.eps,
            weight_decay=adam.weight_decay,
        )
        modules = [module for network in own.values() for module in network.modules()]
        self.after_update = [m for m in modules if isinstance(m, AfterUpdate)]
        self.ema_decay = adam.ema_decay
        self.averages = deepcopy(own) if adam.ema_decay else {}
        self._averaged = [v for n in self.averages.values() for v in n.state_dict().values()]
        self._sources = [v for name in self.averages for v in own[name].state_dict().values()]
        self.world = rank_and_world()[1]

    def __call__(
        self, batch: Tensor, draws: Draws, step_count: int, epoch: float, share: Share
    ) -> Metrics:
        for parameter in self.frozen:
            parameter.requires_grad_(False)
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        loss, metrics = self.objective.loss(self.networks, batch, draws, epoch)
        self.optimizer.zero_grad()
        # DDP takes the mean over the workers; their rows may differ in number by one.
        (loss * (share.size * self.world / share.num)).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        with torch.no_grad():
            for module in self.after_update:
                module.after_update()
            self._average(step_count // self.objective.period)
        return metrics

    def _average(self, num_updates: int) -> None:
        """Follow the networks; at first faster than `ema_decay`, to forget where they began."""
        decay = min(self.ema_decay, (1 + num_updates) / (10 + num_updates))
        for average, source in zip(self._averaged, self._sources, strict=True):
            if average.is_floating_point():
                average.lerp_(source, 1.0 - decay)
            else:
                average.copy_(source)
