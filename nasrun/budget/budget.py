"""The settings of a budget: bounds on the cost of the network that is retrained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

from pydantic import BaseModel, ConfigDict

from nasrun.budget.candidates import Bounds, Candidates
from nasrun.budget.latency import Latencies, Latency
from nasrun.errors import UserError
from nasrun.limits import Bound, OfLargest
from nasrun.run.screen import Screen
from nasrun.search_space.base import Measure, SearchSpace, SizeName
from nasrun.streams import Streams
from nasrun.values import Problem


class Range(BaseModel):
    """The bounds of one cost; min, max: both included, null: no bound.

    A bound may be a share of the cost of the space's largest final network.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: Bound | None
    max: Bound | None

    @property
    def given(self) -> bool:
        """Whether there is any bound."""
        return self.min is not None or self.max is not None

    @property
    def relative(self) -> bool:
        """Whether a bound is a share of the largest network."""
        return isinstance(self.min, OfLargest) or isinstance(self.max, OfLargest)

    def check(self, name: str) -> None:
        """Raise UserError if the lower bound is above the upper one, as far as they compare."""
        both = self.min is not None and self.max is not None
        if both and isinstance(self.min, OfLargest) == isinstance(self.max, OfLargest):
            self.bounds(name)

    def resolved(self, largest: float | None) -> Range:
        """Return the range in absolute numbers.

        largest: the cost of the largest network; None: unknown, so that shares are left out.
        """
        found = []
        for bound in (self.min, self.max):
            absolute = None if largest is None or bound is None else bound * largest
            found.append(absolute if isinstance(bound, OfLargest) else bound)
        return Range.model_construct(min=found[0], max=found[1])

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

    ranges: the bounds in absolute numbers; shares of the largest network are known after ``bind``.
    """

    def __init__(
        self, *, params: Range, macs: Range, bitops: Range, latency_ms: Range, latency: Latency
    ) -> None:
        self.wanted: Mapping[str, Range] = {
            "params": params,
            "macs": macs,
            "bitops": bitops,
            "latency_ms": latency_ms,
        }
        self.latency = latency
        for name, given in self.wanted.items():
            given.check(name)  # raises before anything else is built
        self.ranges = {name: given.resolved(None) for name, given in self.wanted.items()}

    def bind(
        self, space: SearchSpace, problem: Problem, latencies: Latencies, screen: Screen
    ) -> Candidates:
        """Return the architectures of ``space`` within the budget.

        latencies: the latencies of this space; they are measured only if latency is bounded or a
        goal. screen: warns if the bounds can only be met by trial and error.
        Raises UserError if no architecture meets the bounds, with the nearest reachable value.
        """

        def measure_of(name: str) -> Measure:
            if name == "latency_ms":
                return latencies.measure
            return space.sizer(cast(SizeName, name), problem, "final")

        bounds = []
        for name, given in self.wanted.items():
            if given.relative:
                given = self.ranges[name] = _said(given, name, space, measure_of(name), screen)
            limit = space.limit(name)
            met = limit is not None and given.max is not None and limit <= given.max
            if met and given.min is None:
                continue  # the width of every network is fitted to this bound
            if given.given:
                bounds.append(given.bounds(name))
        measures = {bound.name: measure_of(bound.name) for bound in bounds}
        candidates = Candidates(space, bounds, measures, measure_of)
        if bounds and not candidates.exact:
            screen.say(
                f"the budget's costs do not add up over the decisions of {space.name}: its bounds "
                "were sought, not computed, and architectures are led into it step by step, which "
                "is not quite uniform"
            )
        return candidates


UNITS: Mapping[str, tuple[str, str]] = {
    "params": ("M", "parameters"),
    "macs": ("M", "multiply-adds"),
    "bitops": ("G", "bit-operations"),
    "latency_ms": ("", "ms"),
}
"""For each cost the suffix of its numbers on the screen, and its name."""

SUFFIXES = {"": 1.0, "M": 1e6, "G": 1e9}
"""Suffix of a number -> the factor that it stands for."""


def in_words(name: str, value: float) -> str:
    """Return a cost as people read it, e.g. ``12.3M multiply-adds``."""
    suffix, unit = UNITS[name]
    return f"{value / SUFFIXES[suffix]:,.4g}{suffix} {unit}"


def _said(given: Range, name: str, space: SearchSpace, measure: Measure, screen: Screen) -> Range:
    """Return a range in absolute numbers, and say them."""
    _, largest = space.extremes(measure, Streams(0).sub("budget").sub(name))
    most = measure(largest)
    found = given.resolved(most)
    for side, words in (("min", "at least"), ("max", "at most")):
        if isinstance(share := getattr(given, side), OfLargest):
            screen.say(
                f"budget.{name}.{side}={100 * share:.4g}% of the largest network's "
                f"{in_words(name, most)}: {words} {in_words(name, getattr(found, side))}"
            )
    return found
