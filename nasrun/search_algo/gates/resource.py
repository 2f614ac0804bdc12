"""The expected cost of the gates' architecture, as a penalty and as a factor of the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat
from torch import Tensor

from nasrun.budget.candidates import Candidates
from nasrun.errors import UserError
from nasrun.limits import Strength
from nasrun.search_space.base import Measure, SearchSpace
from nasrun.values import Architecture

CostName = Literal["none", "params", "macs", "bitops", "latency_ms"]

UNITS: Mapping[CostName, tuple[float, str]] = {
    "params": (1e3, "thousand parameters"),
    "macs": (1e6, "million multiply-adds"),
    "bitops": (1e6, "million bit-operations"),
    "latency_ms": (1.0, "milliseconds"),
}
"""The units in which logarithms of costs are taken, and their names.

Milliseconds are those of ProxylessNAS' released code; in the other two networks have numbers alike.
"""


class ResourceTerm(BaseModel):
    """A penalty of large networks, which is added to the loss (SNAS, Eq. 9).

    cost: a cost of the final network; none: no penalty.
    weight: factor of the expected cost, which is divided by the largest cost.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cost: CostName
    weight: Annotated[float, Field(ge=0, le=1e6)]


class ExpectedCost:
    """Computes the expected cost from shares; exact if costs add up over decisions.

    base: the cost of the network in which every decision has its first option.
    added: the cost that each option adds to it, [D, K].
    smallest, largest: the smallest and the largest cost of all architectures.
    """

    def __init__(self, space: SearchSpace, measure: Measure) -> None:
        first = [0] * len(space.decisions)
        most = max(len(decision.options) for decision in space.decisions)
        self.base = measure(Architecture(space.name, tuple(first)))
        added = torch.zeros(len(first), most)
        for place, decision in enumerate(space.decisions):
            for option in range(1, len(decision.options)):
                choices = (*first[:place], option, *first[place + 1 :])
                added[place, option] = measure(Architecture(space.name, choices)) - self.base
        self.added = added
        self.smallest = self.base + float(added.min(1).values.sum())
        self.largest = self.base + float(added.max(1).values.sum())

    @classmethod
    def measured(cls, name: CostName, candidates: Candidates) -> ExpectedCost | None:
        """Make the expected cost of that name; None if the name is ``none``."""
        return None if name == "none" else cls(candidates.space, candidates.measure(name))

    def expected_of(self, shares: Tensor) -> Tensor:
        """Shares [D, K] of the options of each decision -> a scalar, in units of the cost."""
        return self.base + (shares * self.added.to(shares)).sum()


class CostFactor(BaseModel):
    """Factor of the loss: factor · (log of the expected cost / log of reference)^power.

    The strength depends on the unit in which the logarithms are taken, which ``UNITS`` fixes.

    cost: a cost of the final network; none: the factor is 1.
    reference: milliseconds of latency, million multiply-adds or bit-operations, or thousand
    parameters; above 1, since the logarithm of 1 is 0.
    of_sample: whether the cost is that of the weights sampled in the step; otherwise of the shares.
    Source: ProxylessNAS' released code, "mul#log", on milliseconds. FBNet (Wu et al., CVPR 2019),
    Eq. 2, has factor·(log cost)^power of the sampled weights: reference = e = 2.718281828.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cost: CostName
    reference: Annotated[float, Field(gt=1, le=1e6)]
    factor: PositiveFloat
    power: Strength
    of_sample: bool = False

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
