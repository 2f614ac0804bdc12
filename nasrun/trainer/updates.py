"""Gradient descent for supernets: only weights that were used in a step change."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nasrun.run.state import State, load_optimiser_state, optimiser_state
from nasrun.trainer.nonfinite import gradient_norm
from nasrun.trainer.settings import TrainerSettings


class Updates:
    """The optimiser of one network.

    momenta: number of momentum buffers of each weight; an update uses and changes one of them.
    """

    def __init__(self, settings: TrainerSettings, network: nn.Module, momenta: int = 1) -> None:
        self.clip = settings.clip
        self.parameters = list(network.parameters())
        decay_all = settings.decay_norm_and_bias
        self.groups = [
            [parameter for parameter in self.parameters if decay_all or parameter.dim() >= 2],
            [parameter for parameter in self.parameters if not decay_all and parameter.dim() < 2],
        ]
        self.optimisers = [
            torch.optim.SGD(
                [
                    {"params": self.groups[0], "weight_decay": settings.weight_decay},
                    {"params": self.groups[1], "weight_decay": 0.0},
                ],
                lr=settings.schedule.lr,
                momentum=settings.momentum,
                nesterov=settings.nesterov,
            )
            for _ in range(momenta)
        ]

    def update(self, lr: float, momentum: int = 0) -> None:
        """Clip the gradients, step, and forget them, for the parameters that have one.

        Options that were not sampled have no gradient, so they get no update, no decay and no
        momentum. The optimiser receives only the others; a supernet has thousands of parameters.
        """
        optimiser = self.optimisers[momentum]
        active = [[p for p in group if p.grad is not None] for group in self.groups]
        if self.clip > 0:
            nn.utils.clip_grad_norm_(active[0] + active[1], self.clip)
        for group, parameters in zip(optimiser.param_groups, active, strict=True):
            group["params"], group["lr"] = parameters, lr
        optimiser.step()
        for group, parameters in zip(optimiser.param_groups, self.groups, strict=True):
            group["params"] = parameters
        for parameter in active[0] + active[1]:
            parameter.grad = None

    @torch.no_grad()
    def look_ahead(self, lr: float) -> list[tuple[Tensor, Tensor]]:
        """Move all weights by a step with their gradients, decay and momentum.

        Forgets the gradients and keeps the momentum. Returns each trainable weight with its old
        value, in the order of the network's parameters.
        """
        optimiser, moved = self.optimisers[0], []
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                if not parameter.requires_grad:
                    continue
                moved.append((parameter, parameter.detach().clone()))
                if parameter.grad is None:
                    continue
                step = parameter.grad + group["weight_decay"] * parameter
                velocity = optimiser.state.get(parameter, {}).get("momentum_buffer")
                if velocity is not None:
                    step = step + group["momentum"] * velocity
                parameter.sub_(lr * step)
                parameter.grad = None
        order = {id(parameter): place for place, parameter in enumerate(self.parameters)}
        return sorted(moved, key=lambda pair: order[id(pair[0])])

    def forget_gradients(self) -> None:
        """Drop the gradients without an update."""
        for parameter in self.parameters:
            parameter.grad = None

    def norm(self) -> Tensor:
        """Return the norm of all gradients together, a scalar."""
        return gradient_norm([p for p in self.parameters if p.grad is not None])

    def state_dict(self) -> State:
        """Return the state of each optimiser, by its number."""
        return {
            str(index): optimiser_state(optimiser)
            for index, optimiser in enumerate(self.optimisers)
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises ValueError if it does not fit the parameters."""
        for index, optimiser in enumerate(self.optimisers):
            load_optimiser_state(optimiser, state[str(index)])
