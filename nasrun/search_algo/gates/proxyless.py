"""ProxylessNAS: the weights train a random path per step, the gates compare two options."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat
from torch import Tensor

from nasrun.budget.candidates import Candidates
from nasrun.dataset.base import Batch
from nasrun.errors import UserError
from nasrun.limits import Count, Epochs, Strength
from nasrun.run.compute import float64
from nasrun.search_algo.gates.darts import check_mixtures
from nasrun.search_algo.gates.learned import LearnedAlgo
from nasrun.search_algo.gates.resource import UNITS, CostName, ExpectedCost
from nasrun.search_algo.gates.soft_gates import GateAdam, SoftGates
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.gates import Gates
from nasrun.trainer.gate_learner import GateContext, Gradients


class CostFactor(BaseModel):
    """Factor of the loss: factor · (log of the expected cost / log of reference)^power.

    The strength depends on the unit in which the logarithms are taken, which ``UNITS`` fixes.

    cost: a cost of the final network; none: the factor is 1.
    reference: milliseconds of latency, million multiply-adds, or thousand parameters; above 1,
    since the logarithm of 1 is 0.
    Source: released code, "mul#log", on milliseconds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cost: CostName
    reference: Annotated[float, Field(gt=1, le=1e6)]
    factor: PositiveFloat
    power: Strength

    def factor_of(self, expected: Tensor) -> Tensor:
        """Return the factor of the loss.

        expected: the expected cost, a scalar: single parameters or multiply-adds, or milliseconds.
        """
        share = (expected / UNITS[self.cost][0]).log() / math.log(self.reference)
        return self.factor * share**self.power

    def check(self, expected: ExpectedCost) -> None:
        """Raise UserError if the factor would be 0, or no number, for some architecture."""
        unit, name = UNITS[self.cost]
        if expected.smallest <= unit:
            raise UserError(
                f"search_algo.cost.cost={self.cost}: the smallest network has "
                f"{expected.smallest / unit:.3g} {name}, and the logarithm of that number, which "
                "the loss is multiplied by, must be above 0: take another cost, or larger networks"
            )


class BinaryGates(SoftGates):
    """Opens one option of each decision, sampled by its share; sometimes compares two.

    Every ``every`` steps, two options of each decision are sampled and one is opened. The other is
    computed too, times 0, so that the loss has a derivative by both gates. Only the two logits
    change; the sum of their exponentials does not.
    Source: ProxylessNAS (Cai et al., ICLR 2019), §3.2, §3.2.1.
    """

    def __init__(
        self, algo: Proxyless, context: GateContext, cost: ExpectedCost | None = None
    ) -> None:
        super().__init__(context, algo.adam, rest_epochs=algo.rest_epochs, spread=algo.spread)
        self.algo, self.cost = algo, cost
        self._shares: Tensor | None = None

    def shares(self) -> Tensor:
        """Return the weights on the CPU, float64; the host waits for them once a change."""
        if self._shares is None:
            self._shares = float64(self.weights().detach()).cpu()
        return self._shares

    def gates(self, step: int) -> list[Gates]:
        shares = float64(self.opened) if self.is_resting(step) else self.shares()
        generator = self.context.streams.torch("path", step)
        path = torch.multinomial(shares, 1, generator=generator)
        return [path[:, 0].tolist()]

    def learn(self, step: int, batch: Batch, training: Gradients) -> None:
        if (step - self.first) % self.algo.every:
            return
        generator = self.context.streams.torch("pair", step)
        shares = self.shares().clamp(min=1e-12) * self.opened
        pairs = torch.multinomial(shares, 2, generator=generator)
        active = torch.multinomial(shares.gather(1, pairs), 1, generator=generator)
        device, places = self.logits.device, pairs.tolist()
        pairs, active = pairs.to(device), active.to(device)
        leaf = torch.zeros(pairs.shape, device=device).scatter_(1, active, 1.0).requires_grad_()
        gates: Gates = [
            dict(zip(pair, row.unbind(), strict=True))
            for pair, row in zip(places, leaf.unbind(), strict=True)
        ]
        measured = training.gradients(*self.batches.batch_of_step(step), gates, [leaf])
        if leaf.grad is None:
            return
        two = self.logits.gather(1, pairs)
        before = two.detach().logsumexp(1)
        gradient = leaf.grad
        if self.cost is not None:
            factor = self.algo.cost.factor_of(self.cost.expected_of(self.weights()))
            gradient = gradient * factor.detach()
            # Decided on the device, for which the host does not wait then.
            loss = torch.where(measured.isfinite().all(), measured[0], 0.0)
            torch.autograd.backward(loss * factor)
            self._mask_gradients(pairs)
        self.update(two.softmax(1), gradient, measured)
        with torch.no_grad():
            after = self.logits.gather(1, pairs).logsumexp(1)
            self.logits.scatter_add_(1, pairs, (before - after)[:, None].expand(-1, 2))
        self._shares = None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises ValueError if it is of another search space."""
        super().load_state_dict(state)
        self._shares = None

    def _mask_gradients(self, pairs: Tensor) -> None:
        """Keep the gradients of the two compared options only."""
        if self.logits.grad is not None:
            mask = torch.zeros_like(self.logits).scatter_(1, pairs, 1.0)
            self.logits.grad.mul_(mask)


@dataclass(frozen=True, kw_only=True)
class Proxyless(LearnedAlgo):
    """ProxylessNAS (Cai et al., ICLR 2019, arXiv 1812.00332), its gradient-based form.

    adam, rest_epochs, spread: see ``SoftGates``; before the gates learn, paths are uniform.
    every: steps of the weights for each step of the gates.
    cost: see ``CostFactor``.
    """

    adam: GateAdam
    rest_epochs: Epochs
    spread: Annotated[float, Field(ge=0, le=10)]
    every: Count
    cost: CostFactor

    def check(self, space: SearchSpace) -> None:
        check_mixtures("proxyless", space)

    def make_learner(self, context: GateContext, candidates: Candidates) -> BinaryGates:
        expected = ExpectedCost.measured(self.cost.cost, candidates)
        if expected is not None:
            self.cost.check(expected)
        return BinaryGates(self, context, expected)
