"""What mixtures cost: the expected cost of an architecture drawn by the gates' shares."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from nasrun.search_space.base import Measure, SearchSpace
from nasrun.values import Architecture

CostName = Literal["none", "params", "macs", "latency_ms"]


class ResourceTerm(BaseModel):
    """cost: of the final network; none: no such term. weight: of the expected cost, as a share of
    the largest there is, added to the loss (SNAS, Eq. 9)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cost: CostName
    weight: Annotated[float, Field(ge=0, le=1e6)]


class ExpectedCost:
    """The cost of the network in which every decision has its first option, and what each option
    adds to it, [D, K]: their expectation is exact where costs add up decision by decision."""

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
        self.largest = self.base + float(added.max(1).values.sum())

    def of(self, shares: Tensor) -> Tensor:
        """shares [D, K] of the options of each decision -> a scalar, in units of the cost."""
        return self.base + (shares * self.added.to(shares)).sum()
