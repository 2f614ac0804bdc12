"""The settings of a budget: bounds on the cost of the network that is retrained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, cast

from pydantic import BaseModel, ConfigDict, Field

from nasrun.budget.candidates import Bounds, Candidates
from nasrun.budget.latency import Latencies, Latency
from nasrun.errors import UserError
from nasrun.limits import Amount
from nasrun.run.screen import Screen
from nasrun.search_space.base import Measure, SearchSpace, SizeName
from nasrun.values import Problem

Limit = Annotated[Amount, Field(ge=0, allow_inf_nan=False)] | None


class Range(BaseModel):
    """The bounds of one cost; min, max: both included, null: no bound."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: Limit
    max: Limit

    @property
    def given(self) -> bool:
        """Whether there is any bound."""
        return self.min is not None or self.max is not None

    def bounds(self, name: str) -> Bounds:
        """Return the bounds of the cost ``name``.

        Raises UserError if the lower bound is above the upper one.
        """
        if self.min is not None and self.max is not None and self.min > self.max:
            raise UserError(f"budget.{name}: min={self.min:g} is above max={self.max:g}")
        return Bounds(
            name,
            -math.inf if self.min is None else self.min,
            math.inf if self.max is None else self.max,
        )


class Budget:
    """Bounds on parameters, multiply-adds, bit-operations and latency of the final network.

    The bounds hold for every architecture that a search algorithm asks for. latency_ms: latency of
    one batch, as ``latency`` measures it.
    """

    def __init__(
        self, *, params: Range, macs: Range, bitops: Range, latency_ms: Range, latency: Latency
    ) -> None:
        self.ranges: Mapping[str, Range] = {
            "params": params,
            "macs": macs,
            "bitops": bitops,
            "latency_ms": latency_ms,
        }
        self.latency = latency
        for name, given in self.ranges.items():
            given.bounds(name)  # raises before anything else is built

    def bind(
        self, space: SearchSpace, problem: Problem, latencies: Latencies, screen: Screen
    ) -> Candidates:
        """Return the architectures of ``space`` within the budget.

        latencies: the latencies of this space; they are measured only if latency is bounded or a
        goal. screen: warns if the bounds can only be met by trial and error.
        Raises UserError if no architecture meets the bounds, with the nearest reachable value.
        """
        bounds = []
        for name, given in self.ranges.items():
            limit = space.limit(name)
            met = limit is not None and given.max is not None and limit <= given.max
            if met and given.min is None:
                continue  # the width of every network is fitted to this bound
            if given.given:
                bounds.append(given.bounds(name))

        def measure_of(name: str) -> Measure:
            if name == "latency_ms":
                return latencies.measure
            return space.sizer(cast(SizeName, name), problem, "final")

        measures = {bound.name: measure_of(bound.name) for bound in bounds}
        candidates = Candidates(space, bounds, measures, measure_of)
        if bounds and not candidates.exact:
            screen.say(
                f"the budget's costs do not add up over the decisions of {space.name}: its bounds "
                "were sought, not computed, and architectures are led into it step by step, which "
                "is not quite uniform"
            )
        return candidates
