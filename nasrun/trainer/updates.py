"""Gradient descent for supernets, whose steps use some of the weights only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from nasrun.run.state import State, load_optimiser_state, optimiser_state
from nasrun.trainer.nonfinite import Copies, gradient_norm
from nasrun.trainer.settings import TrainerSettings

_Step: TypeAlias = tuple[list[Tensor], list[Tensor], list[Tensor | None]]
"""Weights, their gradients and their momenta."""


class Updates:
    """The optimiser of one network.

    momenta: number of momentum buffers of each weight; an update uses and changes one of them.
    A weight that a step has not used is idle: by ``idle_options=freeze`` it stays as it is; by
    ``coast`` its gradient is 0 once it was trained, so that it decays and follows its momentum.
    """

    def __init__(self, settings: TrainerSettings, network: nn.Module, momenta: int = 1) -> None:
        self.clip, self.clip_value = settings.clip, settings.clip_value
        self.momentum, self.nesterov = settings.momentum, settings.nesterov
        self.coast = settings.idle_options == "coast" and self.momentum > 0
        self.parameters = list(network.parameters())
        self._fused = are_fused(self.parameters)
        decay_all = settings.decay_norm_and_bias
        self.groups = [
            [parameter for parameter in self.parameters if decay_all or parameter.dim() >= 2],
            [parameter for parameter in self.parameters if not decay_all and parameter.dim() < 2],
        ]
        self.decays = (settings.weight_decay, 0.0)
        self.optimisers = [  # they keep the momentum: see ``update``
            torch.optim.SGD(
                [{"params": group} for group in self.groups], momentum=settings.momentum
            )
            for _ in range(momenta)
        ]
        self._coasting = [_Trained(momenta) for _ in self.groups]

    @torch.no_grad()
    def update(self, lr: float, momentum: int = 0, good: Tensor | None = None) -> None:
        """Clip the gradients, step, and forget them, for the parameters that have one.

        good: a truth value on the device, for which the host does not wait: if it is false, the
        step is undone there (not for weights that coast); None: true.

        Options that were not sampled have no gradient, so they get no update, no decay and no
        momentum, unless they coast. torch's function gets the others alone, and lists that are
        kept: its optimiser looks at each of thousands of weights several times in every step.
        """
        active = [[p for p in group if p.grad is not None] for group in self.groups]
        used = [parameter for parameters in active for parameter in parameters]
        if self.clip_value > 0:
            nn.utils.clip_grad_value_(used, self.clip_value)
        if self.clip > 0:
            nn.utils.clip_grad_norm_(used, self.clip)
        steps = [
            self._coast(index, parameters, momentum)
            if self.coast
            else self._move(parameters, momentum)
            for index, parameters in enumerate(active)
        ]
        before = None
        if good is not None:
            before = Copies([t for moved, _, own in steps for t in (*moved, *own) if t is not None])
        for decay, (moved, gradients, own) in zip(self.decays, steps, strict=True):
            sgd(
                moved,
                gradients,
                own,
                # The same numbers with fewer calls, as the weights are many and small.
                fused=self._fused,
                foreach=not self._fused,
                weight_decay=decay,
                momentum=self.momentum,
                lr=lr,
                dampening=0.0,
                nesterov=self.nesterov,
                maximize=False,
            )
        if before is not None:
            before.restore(unless=good)
        if self.coast and self.nesterov:  # torch then adds to the gradients in their place
            for trained in self._coasting:
                if trained.zeros:
                    torch._foreach_zero_(trained.zeros)
        for parameter in used:
            parameter.grad = None

    def _momenta(self, parameters: Sequence[Tensor], momentum: int) -> list[Tensor | None]:
        """Return the momentum of each weight, which begins with 0; None: there is none."""
        if not self.momentum:
            return [None] * len(parameters)
        state = self.optimisers[momentum].state
        for parameter in parameters:
            if parameter not in state:
                state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return [state[parameter]["momentum_buffer"] for parameter in parameters]

    def _move(self, active: Sequence[Tensor], momentum: int) -> _Step:
        """Return the step of the weights that have a gradient."""
        return list(active), [self._gradient(p) for p in active], self._momenta(active, momentum)

    def _coast(self, group: int, active: Sequence[Tensor], momentum: int) -> _Step:
        """Return the step of all weights of a group that were ever trained."""
        trained = self._coasting[group]
        trained.add(active)
        own = trained.momenta[momentum]
        own += self._momenta(trained.parameters[len(own) :], momentum)
        gradients = [
            zero if parameter.grad is None else self._gradient(parameter)
            for parameter, zero in zip(trained.parameters, trained.zeros, strict=True)
        ]
        return trained.parameters, gradients, own

    def _gradient(self, parameter: Tensor) -> Tensor:
        """Return the gradient with the strides of its weight: one operation for all wants them."""
        gradient = cast(Tensor, parameter.grad)
        if gradient.stride() == parameter.stride() or not self._fused:
            return gradient
        strides = zip(parameter.shape, gradient.stride(), parameter.stride(), strict=True)
        if all(own == other for side, own, other in strides if side > 1):
            return gradient.as_strided(parameter.shape, parameter.stride())
        return torch.empty_like(parameter).copy_(gradient)

    @torch.no_grad()
    def look_ahead(self, lr: float) -> list[tuple[Tensor, Tensor]]:
        """Move all weights by a step with their gradients, decay and momentum.

        Forgets the gradients and keeps the momentum. Returns each trainable weight with its old
        value, in the order of the network's parameters.
        """
        state, moved = self.optimisers[0].state, []
        for group, decay, trained in zip(self.groups, self.decays, self._coasting, strict=True):
            for parameter in group:
                if not parameter.requires_grad:
                    continue
                moved.append((parameter, parameter.detach().clone()))
                step = parameter.grad
                if step is None:
                    if not trained.has(parameter):
                        continue
                    step = torch.zeros_like(parameter)
                step = step + decay * parameter
                velocity = state.get(parameter, {}).get("momentum_buffer")
                if velocity is not None:
                    step = step + self.momentum * velocity
                parameter.sub_(lr * step)
                parameter.grad = None
        order = {id(parameter): place for place, parameter in enumerate(self.parameters)}
        return sorted(moved, key=lambda pair: order[id(pair[0])])

    def has_trained(self, parameter: Tensor) -> bool:
        """Tell whether a step has moved the weight, so that it has momentum."""
        return any(parameter in optimiser.state for optimiser in self.optimisers)

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
        self._coasting = [_Trained(len(self.optimisers)) for _ in self.groups]
        if self.coast:
            for group, trained in zip(self.groups, self._coasting, strict=True):
                trained.add(list(filter(self.has_trained, group)))


class _Trained:
    """The weights that were ever trained, a gradient of zeros for each, and their momenta.

    A weight has been trained if it has a momentum buffer, which is a part of the state.
    """

    def __init__(self, momenta: int) -> None:
        self.parameters: list[Tensor] = []
        self.zeros: list[Tensor] = []
        self.momenta: list[list[Tensor | None]] = [[] for _ in range(momenta)]
        self._known: set[int] = set()

    def has(self, parameter: Tensor) -> bool:
        """Tell whether the weight was trained, and coasts."""
        return id(parameter) in self._known

    def add(self, parameters: Sequence[Tensor]) -> None:
        """Take in the weights that are not known."""
        new = [parameter for parameter in parameters if not self.has(parameter)]
        self._known.update(map(id, new))
        self.parameters += new
        self.zeros += [torch.zeros_like(parameter, requires_grad=False) for parameter in new]


def are_fused(parameters: Sequence[Tensor]) -> bool:
    """Tell whether one operation moves all weights: where torch has it, calls cost most time."""
    return all(parameter.is_cpu or parameter.is_cuda for parameter in parameters)
