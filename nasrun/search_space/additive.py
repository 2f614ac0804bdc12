"""Search spaces whose costs add up over groups of decisions; each term is counted once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from nasrun.search_space.base import Scale, SearchSpace
from nasrun.values import Architecture, Cost, Problem

Choices = tuple[int, ...]


class CostTerms:
    """Costs as the cost of one architecture plus a difference for the choices of each group."""

    def __init__(
        self, space: SearchSpace, problem: Problem, scale: Scale, groups: Sequence[Choices]
    ) -> None:
        """Count the cost of a random architecture. groups: decisions by index, each in one."""
        self.space, self.problem, self.scale, self.groups = space, problem, scale, groups
        self.start = space.sample(np.random.default_rng(0)).choices
        self.start_cost = self._count(self.start)
        self.known: list[dict[Choices, Cost]] = [{} for _ in groups]

    def _count(self, choices: Choices) -> Cost:
        architecture = Architecture(self.space.name, choices)
        return SearchSpace.cost(self.space, architecture, self.problem, self.scale)

    def difference(self, group: int, options: Choices) -> Cost:
        """Return the change of the cost if the decisions of a group have these options."""
        found = self.known[group].get(options)
        if found is None:
            choices = list(self.start)
            for decision, option in zip(self.groups[group], options, strict=True):
                choices[decision] = option
            cost, start = self._count(tuple(choices)), self.start_cost
            bitops = None if cost.bitops is None else cost.bitops - (start.bitops or 0)
            found = Cost(cost.params - start.params, cost.macs - start.macs, bitops)
            self.known[group][options] = found
        return found

    def cost(self, choices: Choices) -> Cost:
        """Return the cost of the architecture with these choices."""
        params, macs, bitops = self.start_cost.params, self.start_cost.macs, self.start_cost.bitops
        for index, (group, known) in enumerate(zip(self.groups, self.known, strict=True)):
            options = tuple([choices[decision] for decision in group])
            term = known.get(options) or self.difference(index, options)
            params += term.params
            macs += term.macs
            if bitops is not None:
                bitops += term.bitops or 0
        return Cost(params, macs, bitops)


class AdditiveSpace(SearchSpace):
    """A search space whose cost adds up over decisions, so few networks must be counted."""

    @cached_property
    def additive(self) -> tuple[Choices, ...] | None:
        """Every decision by itself."""
        return self.singles

    @property
    def cost_groups(self) -> tuple[Choices, ...]:
        """The groups of decisions with a cost term each: ``groups`` or a finer division."""
        return self.groups

    @cached_property
    def _terms(self) -> dict[tuple[Problem, Scale], CostTerms]:
        return {}

    def terms(self, problem: Problem, scale: Scale) -> CostTerms:
        """The costs of the space's networks, with a term for each of ``cost_groups``."""
        found = self._terms.get((problem, scale))
        if found is None:
            found = self._terms[problem, scale] = CostTerms(self, problem, scale, self.cost_groups)
        return found

    def cost(self, architecture: Architecture, problem: Problem, scale: Scale = "search") -> Cost:
        return self.terms(problem, scale).cost(architecture.choices)

    def cost_bound(self, problem: Problem, scale: Scale = "search") -> Cost:
        """Add up the largest term of every group, separately for each size."""
        terms = self.terms(problem, scale)
        start = Architecture(self.name, terms.start)
        params, macs, bitops = terms.start_cost.params, terms.start_cost.macs, 0
        for group in self.groups:
            costs = [self.cost(variant, problem, scale) for variant in self.variants(start, group)]
            params += max(cost.params for cost in costs) - terms.start_cost.params
            macs += max(cost.macs for cost in costs) - terms.start_cost.macs
            bitops += max(cost.bitops or 0 for cost in costs) - (terms.start_cost.bitops or 0)
        bits = terms.start_cost.bitops
        return Cost(params, macs, None if bits is None else bits + bitops)
