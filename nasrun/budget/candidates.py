"""The architectures that a search may consider: a space within bounds on its costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nasrun.budget.additive import AdditiveCosts, Window
from nasrun.errors import UserError
from nasrun.search_space.base import Measure, SearchSpace
from nasrun.streams import Streams
from nasrun.values import Architecture

MAX_WINDOW_SAMPLES = 20_000
"""Give up after so many samples from the window of one cost if none meets all bounds."""

MAX_WALKS = 200
"""Give up after so many walks towards the budget, each from another random architecture."""

MAX_PLAIN_SAMPLES = 100
"""Uniform random samples that are tried before an architecture is led into the budget."""


@dataclass(frozen=True)
class Bounds:
    """The bounds of one cost, both included: low <= cost <= high.

    name: of the setting, e.g. ``macs``; latency_ms in milliseconds.
    """

    name: str
    low: float
    high: float

    def excess(self, value: float) -> float:
        """Return how far ``value`` is outside, as a share of the bound; 0 inside."""
        if self.low <= value <= self.high:
            return 0.0
        bound = self.low if value < self.low else self.high
        return abs(value - bound) / max(abs(bound), 1e-9)


class Candidates:
    """The architectures that search algorithms sample from, instead of the space itself.

    exact: whether the reachable bounds are known exactly and samples are uniform among all
    architectures within them. If not, both are approximated by walks through the space.
    """

    def __init__(
        self,
        space: SearchSpace,
        bounds: Sequence[Bounds] = (),
        measures: Mapping[str, Measure] | None = None,
        measure_of: Callable[[str], Measure] | None = None,
    ) -> None:
        """Check that some architecture meets the bounds.

        measures: the measure of each bounded cost, by name. measure_of: makes further measures.
        Raises UserError if nothing meets the bounds.
        """
        self.space = space
        self.bounds = tuple(bounds)
        self.measures = dict(measures or {})
        self._measure_of = measure_of
        self.exact = space.additive is not None
        self.window: Window | None = None
        if self.bounds:
            streams = Streams(0).sub("budget")  # the reachable costs are a property of the space
            for bound in self.bounds:
                self._check_reach(bound, streams)
            if self.exact:
                self.window = min(map(self._window, self.bounds), key=lambda window: window.count)
            self._check_together(streams.numpy("first"))

    def allows(self, architecture: Architecture) -> bool:
        """Whether the architecture is within the budget."""
        return all(
            bound.excess(self.measures[bound.name](architecture)) == 0 for bound in self.bounds
        )

    def measure(self, name: str) -> Measure:
        """Return the measure of a cost of the final network, bounded or not.

        Raises UserError if there is none of that name.
        """
        if name in self.measures:
            return self.measures[name]
        if self._measure_of is None:
            raise UserError(f"there is no measure of {name}")
        return self._measure_of(name)

    def costs(self, architecture: Architecture) -> dict[str, float]:
        """Return the costs that are bounded, by name."""
        return {name: measure(architecture) for name, measure in self.measures.items()}

    def sample(self, rng: np.random.Generator) -> Architecture | None:
        """Return a random architecture within the budget; None if none was found."""
        if not self.bounds:
            return self.space.sample(rng)
        if self.window is not None:
            for _ in range(MAX_WINDOW_SAMPLES if self.window.count else 0):
                architecture = self.window.sample(rng)
                if self.allows(architecture):
                    return architecture
            return None
        for _ in range(MAX_PLAIN_SAMPLES):
            architecture = self.space.sample(rng)
            if self.allows(architecture):
                return architecture
        for _ in range(MAX_WALKS):
            architecture = self._walk(self.space.sample(rng), rng)
            if self.allows(architecture):
                return architecture
        return None

    def _excess(self, architecture: Architecture) -> float:
        return sum(bound.excess(self.measures[bound.name](architecture)) for bound in self.bounds)

    def _walk(self, start: Architecture, rng: np.random.Generator) -> Architecture:
        """Change one decision at a time, each time coming nearer to the budget.

        Begins at ``start``; ends when the budget is met or no change comes nearer to it.
        """
        best, excess = start, self._excess(start)
        changes = [
            (index, option)
            for index, decision in enumerate(self.space.decisions)
            for option in range(len(decision.options))
        ]
        nearer = True
        while excess > 0 and nearer:
            nearer = False
            for place in rng.permutation(len(changes)).tolist():
                index, option = changes[place]
                choices = (*best.choices[:index], option, *best.choices[index + 1 :])
                candidate = self.space.repair(Architecture(self.space.name, choices), rng)
                if (found := self._excess(candidate)) < excess:
                    best, excess, nearer = candidate, found, True
                    if excess == 0:
                        break
        return best

    def _window(self, bound: Bounds) -> Window:
        return AdditiveCosts(self.space, self.measures[bound.name]).window(bound.low, bound.high)

    def _check_reach(self, bound: Bounds, streams: Streams) -> None:
        """Raise UserError if the costs of the whole space lie below the bounds, or above them."""
        measure = self.measures[bound.name]
        low, high = map(measure, self.space.extremes(measure, streams.sub(bound.name)))
        found = "is" if self.exact else "that was found is"
        if low > bound.high:
            raise UserError(
                f"budget.{bound.name}.max={bound.high:,.10g} cannot be met: the smallest "
                f"{bound.name} of {self.space.name} {found} {low:,.10g}"
            )
        if high < bound.low:
            raise UserError(
                f"budget.{bound.name}.min={bound.low:,.10g} cannot be met: the largest "
                f"{bound.name} of {self.space.name} {found} {high:,.10g}"
            )

    def _check_together(self, rng: np.random.Generator) -> None:
        """Raise UserError if no architecture is found that meets all bounds."""
        if self.sample(rng) is not None:
            return
        walks = [self._walk(self.space.sample(rng), rng) for _ in range(20)]
        nearest = min(walks, key=self._excess)
        if self.allows(nearest) and not self.exact:
            return
        reached = ", ".join(f"{name} {cost:,.10g}" for name, cost in self.costs(nearest).items())
        if self.allows(nearest):  # they are too rare for random samples to find them
            raise UserError(
                f"{self._typed()}: hardly any architecture of {self.space.name} is within (one has "
                f"{reached}): widen the budget"
            )
        raise UserError(
            f"{self._typed()}: no architecture of {self.space.name} was found within; the nearest "
            f"has {reached}"
        )

    def _typed(self) -> str:
        """Return the bounds as they are typed."""
        words = []
        for bound in self.bounds:
            if math.isfinite(bound.low):
                words.append(f"budget.{bound.name}.min={bound.low:,.10g}")
            if math.isfinite(bound.high):
                words.append(f"budget.{bound.name}.max={bound.high:,.10g}")
        return " ".join(words)
