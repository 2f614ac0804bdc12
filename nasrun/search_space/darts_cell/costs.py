"""Exact costs of ``darts_cell``: a constant, and one term for the operation on each edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nasrun.search_space.darts_cell.operations import OPTIONS, calibration_cost
from nasrun.search_space.darts_cell.wiring import CELLS, edges_before, edges_of
from nasrun.search_space.operation import total
from nasrun.search_space.stacked_cells import NetworkPlan, StemKind, ends_cost
from nasrun.values import Cost, Problem


@dataclass(frozen=True)
class Costs:
    """fixed: stem, head and what fits the inputs of cells together; options: for each edge of the
    normal and then of the reduction cell what each operation costs in all cells of the kind."""

    fixed: Cost
    options: tuple[tuple[Cost, ...], ...]

    def of(self, choices: Sequence[int]) -> Cost:
        """Any edges may be open."""
        terms = (costs[choice] for costs, choice in zip(self.options, choices, strict=True))
        return total([self.fixed, *terms])

    def bound(self, nodes: int) -> Cost:
        """The two most expensive edges of every node, by parameters and by multiply-adds."""
        params, macs = self.fixed.params, self.fixed.macs
        for start in (0, len(self.options) // len(CELLS)):
            for node in range(nodes):
                edges = self.options[start + edges_before(node) : start + edges_before(node + 1)]
                params += sum(sorted(max(cost.params for cost in edge) for edge in edges)[-2:])
                macs += sum(sorted(max(cost.macs for cost in edge) for edge in edges)[-2:])
        return Cost(params, macs)


def count(plan: NetworkPlan, problem: Problem, nodes: int, *, stem: StemKind) -> Costs:
    """The costs of all networks of that plan."""
    fixed = [ends_cost(plan, problem, stem)]
    for cell in plan.cells:
        fixed += calibration_cost(cell)
    options = tuple(
        tuple(
            total(
                operation.cost(
                    cell.channels,
                    cell.size_in if state < 2 else cell.size_out,
                    2 if reduction and state < 2 else 1,
                )
                for cell in plan.cells
                if cell.reduction == reduction
            )
            for operation in OPTIONS.values()
        )
        for reduction in (False, True)
        for _, state in edges_of(nodes)
    )
    return Costs(total(fixed), options)
