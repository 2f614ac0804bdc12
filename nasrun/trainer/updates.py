"""Gradient descent for supernets, whose steps use some of the weights only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nasrun.run.state import State, load_optimiser_state, optimiser_state
from nasrun.trainer.nonfinite import Copies, gradient_norm
from nasrun.trainer.settings import TrainerSettings


class Updates:
    """The optimiser of one network.

    momenta: number of momentum buffers of each weight; an update uses and changes one of them.
    A weight that a step has not used is idle: by ``idle_options=freeze`` it stays as it is; by
    ``coast`` its gradient is 0 once it was trained, so that it decays and follows its momentum.
    """

    def __init__(self, settings: TrainerSettings, network: nn.Module, momenta: int = 1) -> None:
        self.clip, self.clip_value = settings.clip, settings.clip_value
        self.coast, self.nesterov = settings.idle_options == "coast", settings.nesterov
        self._zeros: dict[Tensor, Tensor] = {}  # gradients of idle weights
        self.parameters = list(network.parameters())
        self._fused = are_fused(self.parameters)
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
                # The same numbers with fewer calls, as the weights are many and small.
                fused=self._fused,
                foreach=not self._fused,
            )
            for _ in range(momenta)
        ]

    def update(self, lr: float, momentum: int = 0, good: Tensor | None = None) -> None:
        """Clip the gradients, step, and forget them, for the parameters that have one.

        good: a truth value on the device, for which the host does not wait: if it is false, the
        step is undone there (not for weights that coast); None: true.

        Options that were not sampled have no gradient, so they get no update, no decay and no
        momentum, unless they coast. The optimiser receives only the others; a supernet has
        thousands of parameters.
        """
        optimiser = self.optimisers[momentum]
        used = [p for group in self.groups for p in group if p.grad is not None]
        if self.clip_value > 0:
            nn.utils.clip_grad_value_(used, self.clip_value)
        if self.clip > 0:
            nn.utils.clip_grad_norm_(used, self.clip)
        with self._idle_gradients():
            active = [[p for p in group if p.grad is not None] for group in self.groups]
            begins = self._fused or good is not None
            for group, parameters in zip(optimiser.param_groups, active, strict=True):
                group["params"], group["lr"] = parameters, lr
                for parameter in parameters:
                    if begins and group["momentum"] and parameter not in optimiser.state:
                        # All have one, or none: it is 0 before the first step.
                        optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            before = None if good is None else Copies(_changed_by(optimiser))
            optimiser.step()
            if before is not None:
                before.restore(unless=good)
        for group, parameters in zip(optimiser.param_groups, self.groups, strict=True):
            group["params"] = parameters
        for parameter in used:
            parameter.grad = None

    @contextmanager
    def _idle_gradients(self) -> Iterator[None]:
        """Give a gradient of zeros to the idle weights that coast, and take it away at the end.

        A weight has been trained if it has a momentum buffer, which is a part of the state.
        """
        idle = [p for p in self.parameters if self.coast and p.grad is None and self._trained(p)]
        for parameter in idle:
            if parameter not in self._zeros:
                self._zeros[parameter] = torch.zeros_like(parameter, requires_grad=False)
            parameter.grad = self._zeros[parameter]
        yield
        for parameter in idle:
            parameter.grad = None
        if idle and self.nesterov:  # torch then adds to the gradients in their place
            torch._foreach_zero_([self._zeros[parameter] for parameter in idle])

    def _trained(self, parameter: Tensor) -> bool:
        return any(parameter in optimiser.state for optimiser in self.optimisers)

    @torch.no_grad()
    def look_ahead(self, lr: float) -> list[tuple[Tensor, Tensor]]:
        """Move all weights by a step with their gradients, decay and momentum.

        Forgets the gradients and keeps the momentum. Returns each trainable weight with its old
        value, in the order of the network's parameters.
        """
        optimiser, moved = self.optimisers[0], []
        with self._idle_gradients():
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


def _changed_by(optimiser: torch.optim.Optimizer) -> Iterator[Tensor]:
    """Yield the weights that a step of the optimiser changes, and their momentum."""
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            yield parameter
            yield from optimiser.state.get(parameter, {}).values()


def are_fused(parameters: Sequence[Tensor]) -> bool:
    """Tell whether one operation moves each weight: on a CPU, where calls are most of the time."""
    return all(parameter.is_cpu for parameter in parameters)
