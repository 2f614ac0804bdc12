"""The search space of NAO, NAO-WS, NAO-V2 and ENAS: two cells of five nodes, 40 decisions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from nasrun.errors import UserError
from nasrun.limits import Width
from nasrun.search_space.base import Piece, Scale, SearchSpace
from nasrun.search_space.gates import GateKind
from nasrun.search_space.nao_cell.cell import (
    Node,
    calibration_cost,
    nodes_of,
    unused_states,
)
from nasrun.search_space.nao_cell.network import NaoNetwork
from nasrun.search_space.nao_cell.pieces import list_pieces
from nasrun.search_space.nao_cell.plan import plan_network
from nasrun.search_space.nao_cell.supernet import NaoSupernet
from nasrun.search_space.operation import OPERATIONS, FactorizedReduce, total
from nasrun.search_space.stacked_cells import NetworkPlan, StemKind, ends_cost
from nasrun.values import Architecture, Cost, Decision, Problem

OPERATION_SETS: Mapping[str, tuple[str, ...]] = {
    # the order is that of the released architecture strings
    "small": ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "identity"),
    "middle": (
        "zero",
        "identity",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "sep_conv_7x7",
        "dil_sep_conv_3x3",
        "dil_sep_conv_5x5",
        "dil_sep_conv_7x7",
        "avg_pool_3x3",
        "max_pool_3x3",
    ),
    # eleven operations are stated; which ones is general knowledge, not verified
    "large": (
        "identity",
        "conv_1x1",
        "conv_3x3",
        "conv_1x3_3x1",
        "conv_1x7_7x1",
        "max_pool_2x2",
        "max_pool_3x3",
        "max_pool_5x5",
        "avg_pool_2x2",
        "avg_pool_3x3",
        "avg_pool_5x5",
    ),
}

LARGEST = 50_000
"""Operations of a network; the supernet of the paper has 2,200. Python takes long over more."""

OperationSet = Literal["small", "middle", "large"]


class CellScale(BaseModel):
    """layers: N, normal cells of a stage (3N + 2 cells in all); channels: C of the first stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: Annotated[int, Field(gt=0, le=1000)]
    channels: Width


class NaoCell(SearchSpace):
    """``nao_cell``: the space of NAO-V2's released code (Luo et al., arXiv 1909.10815).

    The choices of an architecture are the 40 integers of a released architecture string: four a
    node (x input, x operation, y input, y operation), normal cell first.
    """

    gate_kinds: frozenset[GateKind] = frozenset({"path"})

    def __init__(
        self,
        *,
        operations: OperationSet,
        nodes: Annotated[int, Field(gt=0, le=100)],
        stem: StemKind,
        search: CellScale,
        final: CellScale,
    ) -> None:
        self.name = f"nao_cell/{operations}/{nodes}"
        self.operations = OPERATION_SETS[operations]
        self.nodes = nodes
        self.stem: StemKind = stem
        self.scales: dict[Scale, CellScale] = {"search": search, "final": final}
        # In the supernet branch i of a cell may read from i + 2 places.
        in_a_cell = {"search": nodes * (nodes + 3) * len(self.operations), "final": 2 * nodes}
        for scale, size in self.scales.items():
            count = (3 * size.layers + 2) * in_a_cell[scale]
            if count > LARGEST:
                raise UserError(
                    f"search_space.{scale}.layers = {size.layers} with search_space.nodes = "
                    f"{nodes} makes a network of {count:,} operations; at most {LARGEST:,} are "
                    "built: lower one of them"
                )

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        inputs = ("cell k-2", "cell k-1", *(f"node {node}" for node in range(self.nodes)))
        return tuple(
            decision
            for cell in ("normal", "reduction")
            for node in range(self.nodes)
            for branch in "xy"
            for decision in (
                Decision(f"{cell}/node{node}/{branch}/input", inputs[: node + 2]),
                Decision(f"{cell}/node{node}/{branch}/op", self.operations),
            )
        )

    def cells(self, architecture: Architecture) -> tuple[list[Node], list[Node]]:
        """Nodes of the normal and of the reduction cell."""
        half = len(architecture.choices) // 2
        return nodes_of(architecture.choices[:half]), nodes_of(architecture.choices[half:])

    def _plan(self, problem: Problem, scale: Scale, concat: tuple[int, int]) -> NetworkPlan:
        size = self.scales[scale]
        return plan_network(
            problem, layers=size.layers, channels=size.channels, stem=self.stem, concat=concat
        )

    def _plan_of(self, architecture: Architecture, problem: Problem, scale: Scale) -> NetworkPlan:
        normal, reduction = self.cells(architecture)
        return self._plan(
            problem, scale, (len(unused_states(normal)), len(unused_states(reduction)))
        )

    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> NaoSupernet:
        plan = self._plan(problem, "search", (1, 1))
        return NaoSupernet(
            plan, problem, self.nodes, self.operations, stem=self.stem, auxiliary=auxiliary
        )

    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> NaoNetwork:
        plan = self._plan_of(self.check(architecture), problem, scale)
        cells = self.cells(architecture)
        return NaoNetwork(
            plan, problem, cells, self.operations, stem=self.stem, auxiliary=auxiliary
        )

    def cost(self, architecture: Architecture, problem: Problem, scale: Scale = "search") -> Cost:
        cells = self.cells(architecture)
        unused = [unused_states(nodes) for nodes in cells]
        operations = [OPERATIONS[name] for name in self.operations]
        plan = self._plan_of(architecture, problem, scale)
        costs = [ends_cost(plan, problem, self.stem)]
        for cell in plan.cells:
            costs += calibration_cost(cell)
            for node in cells[cell.reduction]:
                for branch in node:
                    strided = cell.reduction and branch.input < 2
                    size = cell.size_in if branch.input < 2 else cell.size_out
                    operation = operations[branch.op]
                    costs.append(operation.cost(cell.channels, size, 2 if strided else 1))
            if cell.reduction:
                reduce = FactorizedReduce.cost(cell.channels, cell.channels, cell.size_in)
                costs += [reduce for state in unused[True] if state < 2]
        return total(costs)

    def cost_bound(self, problem: Problem, scale: Scale = "search") -> Cost:
        """Every branch at its most expensive option and every cell at its widest output.

        At least one of the two inputs is read, so at most nodes + 1 states are left unused.
        """
        widest = self.nodes + 1
        plan = self._plan(problem, scale, (widest, widest))
        params, macs = [], []
        for cell in plan.cells:
            for node in range(self.nodes):
                options = [
                    OPERATIONS[name].cost(
                        cell.channels,
                        cell.size_in if source < 2 else cell.size_out,
                        2 if cell.reduction and source < 2 else 1,
                    )
                    for source in range(node + 2)
                    for name in self.operations
                ]
                params.append(2 * max(option.params for option in options))
                macs.append(2 * max(option.macs for option in options))
        rest = [ends_cost(plan, problem, self.stem)]
        for cell in plan.cells:
            rest += calibration_cost(cell)
            if cell.reduction:
                rest.append(FactorizedReduce.cost(cell.channels, cell.channels, cell.size_in))
        fixed = total(rest)
        return Cost(fixed.params + sum(params), fixed.macs + sum(macs))

    def pieces(
        self, architecture: Architecture, problem: Problem, scale: Scale = "search"
    ) -> list[Piece]:
        """Stem, operations of the nodes, what fits inputs and outputs of cells together, and head.

        Names tell the operation, its channels, the input's side and, of the nodes' operations, the
        stride: ``nao_cell/sep_conv_3x3 36 32 s1``. Sums and concatenations are in none of them.
        """
        plan = self._plan_of(architecture, problem, scale)
        cells = self.cells(architecture)
        return list_pieces(plan, problem, cells, self.operations, stem=self.stem)

    def canonical(self, architecture: Architecture) -> Architecture:
        """The two branches of a node are summed, so their order is free: the smaller one first."""
        choices: list[int] = []
        for nodes in self.cells(architecture):
            for node in nodes:
                for branch in sorted(node):
                    choices += branch
        return Architecture(self.name, tuple(choices))

    def equivalent(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """The branches of one random node of each cell swapped (NAO's augmentation)."""
        choices = list(architecture.choices)
        for cell in range(2):
            start = 4 * (cell * self.nodes + int(rng.integers(self.nodes)))
            x, y = choices[start : start + 2], choices[start + 2 : start + 4]
            choices[start : start + 4] = [*y, *x]
        return Architecture(self.name, tuple(choices))

    def describe(self, architecture: Architecture) -> list[str]:
        lines = []
        inputs = ("cell k-2", "cell k-1", *(f"node {node}" for node in range(self.nodes)))
        for title, nodes in zip(
            ("normal cell", "reduction cell"), self.cells(architecture), strict=True
        ):
            lines.append(title)
            for index, node in enumerate(nodes):
                terms = " + ".join(
                    f"{self.operations[branch.op]}({inputs[branch.input]})" for branch in node
                )
                lines.append(f"  node {index} = {terms}")
            states = ", ".join(inputs[state] for state in unused_states(nodes))
            lines.append(f"  output = concat({states})")
        return lines
