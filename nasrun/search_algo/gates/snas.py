"""SNAS: relaxed random choices, learned together with the weights, on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from nasrun.budget.candidates import Candidates
from nasrun.dataset.base import Batch
from nasrun.limits import Epochs
from nasrun.search_algo.gates.darts import check_mixtures
from nasrun.search_algo.gates.learned import LearnedAlgo
from nasrun.search_algo.gates.resource import ExpectedCost, ResourceTerm
from nasrun.search_algo.gates.soft_gates import GateAdam, SoftGates
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.gates import Gates
from nasrun.trainer.gate_learner import GateContext, Gradients


@dataclass(frozen=True, kw_only=True)
class Snas(LearnedAlgo):
    """SNAS (Xie et al., ICLR 2019, arXiv 1812.09926).

    adam, rest_epochs, centre, spread: see ``SoftGates``.
    temperature_start, temperature_end: temperatures of the softmax over logits plus Gumbel noise.
    resource: penalty of large networks.
    """

    adam: GateAdam
    rest_epochs: Epochs
    centre: Annotated[float, Field(ge=-100, le=100)]
    spread: Annotated[float, Field(ge=0, le=10)]
    temperature_start: PositiveFloat
    temperature_end: PositiveFloat
    resource: ResourceTerm

    def check(self, space: SearchSpace) -> None:
        check_mixtures("snas", space)

    def make_learner(self, context: GateContext, candidates: Candidates) -> SnasGates:
        return SnasGates(self, context, ExpectedCost.measured(self.resource.cost, candidates))


class SnasGates(SoftGates):
    """Gumbel-softmax gates: softmax((logits + Gumbel noise) / temperature).

    The noise is sampled anew in every step. The temperature falls linearly from the first to the
    last step (released code). Where a space has ``none``, an architecture may keep it.

    cost: the expected cost for the penalty, if there is one.
    """

    def __init__(self, algo: Snas, context: GateContext, cost: ExpectedCost | None = None) -> None:
        super().__init__(
            context,
            algo.adam,
            rest_epochs=algo.rest_epochs,
            spread=algo.spread,
            centre=algo.centre,
        )
        self.algo, self.cost = algo, cost
        self._shares: Tensor | None = None
        self._leaf: Tensor | None = None

    def temperature(self, step: int) -> float:
        start, end = self.algo.temperature_start, self.algo.temperature_end
        return float(start + (end - start) * (step / max(self.context.steps - 1, 1)))

    def gates(self, step: int) -> list[Gates]:
        generator = self.context.streams.torch("gumbel", step)
        uniform = torch.rand(self.logits.shape, generator=generator).clamp(1e-10, 1 - 1e-7)
        noise = -(-uniform.log()).log()
        logits = (self.logits + noise.to(self.logits)) / self.temperature(step)
        self._shares = self.mask_closed(logits).softmax(1)
        self._leaf = self._shares.detach().requires_grad_()
        return [self.gates_by(self._leaf)]

    def learn(self, step: int, batch: Batch, training: Gradients) -> None:
        """Do nothing here: the step of the weights gives the gradients."""

    def learn_after(self, step: int) -> None:
        if self._shares is None or self._leaf is None or self._leaf.grad is None:
            return
        if not self.is_resting(step):
            if self.cost is not None:
                weight = self.algo.resource.weight
                term = weight * self.cost.expected_of(self.weights()) / self.cost.largest
                torch.autograd.backward(term)
            self.update(self._shares, self._leaf.grad)
        self._shares = self._leaf = None

    def drop_gradients(self) -> None:
        if self._leaf is not None:
            self._leaf.grad = None
