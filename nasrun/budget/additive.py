"""Uniform samples of the architectures whose cost lies in a window, where costs add up.

Costs are rounded to steps of ``width``. Dynamic programming over the groups of decisions counts,
for each partial sum, the choices of the remaining groups that end in the window. So every sample
lies in the window, however narrow it is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nasrun.search_space.base import Measure, SearchSpace
from nasrun.values import Architecture

MAX_COST_STEPS = 2**18
"""Upper bound of the steps from the nearer end of all costs to the far end of the window."""

WINDOW_STEPS = 64
"""Steps within the window, unless it is too narrow for so many."""


class AdditiveCosts:
    """The terms of a cost that adds up over the groups of ``SearchSpace.additive``.

    options: for each group the choices of its decisions; terms: what each adds to ``base``.
    """

    def __init__(self, space: SearchSpace, measure: Measure) -> None:
        """Tabulate the terms of ``measure``; raises ValueError if the space is not additive."""
        if space.additive is None:
            raise ValueError(f"{space.name} is not additive")
        self.name, self.groups = space.name, space.additive
        start = Architecture(space.name, (0,) * len(space.decisions))
        self.base = measure(start)
        self.options: list[list[tuple[int, ...]]] = []
        self.terms: list[npt.NDArray[np.float64]] = []
        for group in self.groups:
            found = list(space.variants(start, group))
            terms = [measure(changed) - self.base for changed in found]
            self.options.append([tuple(changed.choices[i] for i in group) for changed in found])
            self.terms.append(np.array(terms, dtype=np.float64))
        self.low = self.base + sum(float(terms.min()) for terms in self.terms)
        self.high = self.base + sum(float(terms.max()) for terms in self.terms)

    def window(self, low: float, high: float) -> Window:
        """Return a sampler of the architectures that cost between ``low`` and ``high``."""
        return Window(self, low, high)

    def architecture(self, picks: list[int]) -> Architecture:
        """Return the architecture that takes option ``picks[g]`` of each group g."""
        choices = [0] * sum(map(len, self.groups))
        for group, options, pick in zip(self.groups, self.options, picks, strict=True):
            for index, choice in zip(group, options[pick], strict=True):
                choices[index] = choice
        return Architecture(self.name, tuple(choices))


class Window:
    """Samples uniformly the architectures whose cost, in steps, may lie in the window.

    All architectures in the window are sampled, with equal probability. Rounding also lets in some
    that lie just outside; the caller rejects those.
    """

    def __init__(self, costs: AdditiveCosts, low: float, high: float) -> None:
        self.costs = costs
        # Allow for rounding errors of sums, so that a bound equal to the smallest cost is met.
        margin = 1e-12 * max(abs(costs.low), abs(costs.high))
        low, high = max(low, costs.low) - margin, min(high, costs.high) + margin
        # Sums are counted from the end of all costs that is nearer to the window.
        if high - costs.low <= costs.high - low:
            first, last = low - costs.low, high - costs.low
            shifted = [terms - terms.min() for terms in costs.terms]
        else:
            first, last = costs.high - high, costs.high - low
            shifted = [terms.max() - terms for terms in costs.terms]
        width = max((high - low) / WINDOW_STEPS, last / MAX_COST_STEPS, 0.0) or 1.0
        # Each group's term is rounded by at most half a step; the division is inexact too.
        slack = len(shifted) / 2 + 1e-6
        reach = sum(float(terms.max()) for terms in shifted) / width
        size = max(int(np.floor(min(last / width, reach) + slack)) + 1, 1)
        begin = max(int(np.ceil(first / width - slack)), 0)
        self.steps = [np.rint(np.minimum(t / width, size)).astype(np.int64) for t in shifted]
        # ways[g][s]: how many choices of groups g, g + 1, ... lead from the sum s into the window.
        ways = np.zeros((len(self.steps) + 1, size))
        if high >= low:
            ways[-1, begin:] = 1
        for group in range(len(self.steps) - 1, -1, -1):
            for step in filter(size.__gt__, self.steps[group].tolist()):
                ways[group, : size - step] += ways[group + 1, step:]
        self.ways = ways

    @property
    def count(self) -> float:
        """The number of architectures to sample from; 0: none lies in the window."""
        return float(self.ways[0, 0])

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Return a random architecture; raises ValueError if the window is empty."""
        if not self.count:
            raise ValueError("the window is empty")
        total, picks = 0, []
        for steps, ways in zip(self.steps, self.ways[1:], strict=True):
            places = total + steps
            weights = np.where(places < len(ways), ways[np.minimum(places, len(ways) - 1)], 0)
            sums = np.cumsum(weights)
            pick = int(np.searchsorted(sums, rng.random() * sums[-1], "right"))
            picks.append(pick)
            total += int(steps[pick])
        return self.costs.architecture(picks)
