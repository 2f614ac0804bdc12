"""SNAS: relaxed random choices, learned together with the weights, on the same images."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from nasrun.budget.candidates import Candidates
from nasrun.dataset.base import Batch
from nasrun.limits import Epochs
from nasrun.search_algo.gates.darts import check_mixtures
from nasrun.search_algo.gates.learned import LearnedSearch
from nasrun.search_algo.gates.resource import ExpectedCost, ResourceTerm
from nasrun.search_algo.gates.soft_gates import GateAdam, SoftGates
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.gates import Gates
from nasrun.streams import Streams
from nasrun.trainer.gate_learner import Gradients
from nasrun.values import Architecture


class SnasGates(SoftGates):
    """Gumbel-softmax gates: softmax((logits + Gumbel noise) / temperature), other noise every step.

    The temperature falls from the first to the last step by equal factors.
    """

    def __init__(
        self,
        adam: GateAdam,
        *,
        rest_epochs: float,
        spread: float,
        temperatures: tuple[float, float],
        weight: float,
    ) -> None:
        super().__init__(adam, rest_epochs=rest_epochs, spread=spread)
        self.temperatures, self.weight = temperatures, weight
        self.cost: ExpectedCost | None = None
        self._drawn: Tensor | None = None
        self._leaf: Tensor | None = None

    def temperature(self, step: int) -> float:
        start, end = self.temperatures
        return float(start * (end / start) ** (step / max(self.context.steps - 1, 1)))

    def gates(self, step: int) -> list[Gates]:
        generator = self.context.streams.torch("gumbel", step)
        uniform = torch.rand(self.logits.shape, generator=generator).clamp(1e-10, 1 - 1e-7)
        noise = -(-uniform.log()).log()
        logits = (self.logits + noise.to(self.logits)) / self.temperature(step)
        self._drawn = self.closed_out(logits).softmax(1)
        self._leaf = self._drawn.detach().requires_grad_()
        return [self.gates_by(self._leaf)]

    def learn(self, step: int, batch: Batch, training: Gradients) -> None:
        """Nothing before: the weights' own step brings the gradients."""

    def after(self, step: int) -> None:
        if self._drawn is None or self._leaf is None or self._leaf.grad is None:
            return
        if not self.resting(step):
            if self.cost is not None:
                term = self.weight * self.cost.of(self.weights()) / self.cost.largest
                torch.autograd.backward(term)
            self.update(self._drawn, self._leaf.grad)
        self._drawn = self._leaf = None

    def forget(self) -> None:
        if self._leaf is not None:
            self._leaf.grad = None


class Snas(LearnedSearch):
    """SNAS (Xie et al., ICLR 2019, arXiv 1812.09926).

    adam, rest_epochs, spread: see ``SoftGates``. temperature_start, temperature_end: of the softmax
    over logits and Gumbel noise. resource: what large networks cost besides.
    """

    learner: SnasGates

    def __init__(
        self,
        *,
        adam: GateAdam,
        rest_epochs: Epochs,
        spread: Annotated[float, Field(ge=0, le=10)],
        temperature_start: PositiveFloat,
        temperature_end: PositiveFloat,
        resource: ResourceTerm,
    ) -> None:
        super().__init__()
        self.resource = resource
        self.learner = SnasGates(
            adam,
            rest_epochs=rest_epochs,
            spread=spread,
            temperatures=(temperature_start, temperature_end),
            weight=resource.weight,
        )

    def check(self, space: SearchSpace) -> None:
        check_mixtures("snas", space)

    def start(self, candidates: Candidates, streams: Streams, device: torch.device) -> None:
        super().start(candidates, streams, device)
        if self.resource.cost != "none":
            measure = candidates.measure(self.resource.cost)
            self.learner.cost = ExpectedCost(self.space, measure)

    def derive(self) -> Architecture:
        return self.learner.derive()
