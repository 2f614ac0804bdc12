"""The search space of NAO, NAO-WS, NAO-V2 and ENAS: two cells of five nodes, 40 decisions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from nasrun.errors import UserError
from nasrun.limits import Width
from nasrun.search_space.base import Scale, SearchSpace
from nasrun.search_space.gates import GateKind
from nasrun.search_space.graph import Graph, words
from nasrun.search_space.layer import Layer, count_layers, sum_costs
from nasrun.search_space.nao_cell.cell import Node, nodes_of, unused_states
from nasrun.search_space.nao_cell.network import NaoNetwork
from nasrun.search_space.nao_cell.plan import (
    branch_layer,
    calibration_layers,
    list_layers,
    plan_network,
    reduce_layer,
)
from nasrun.search_space.nao_cell.supernet import NaoSupernet
from nasrun.search_space.stacked_cells import NetworkPlan, StemKind, head_layer, stem_layer
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
    # PNAS' eight, in the order of its paper; its dilated convolution may be no separable one
    "pnas": (
        "sep_conv_3x3",
        "sep_conv_5x5",
        "sep_conv_7x7",
        "conv_1x7_7x1",
        "identity",
        "avg_pool_3x3",
        "max_pool_3x3",
        "dil_sep_conv_3x3",
    ),
    # In the released code a network that is trained alone may have these, a supernet not.
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

MAX_OPERATIONS = 50_000
"""Upper bound of the operations of a network; the paper's supernet has 2,200."""

OperationSet = Literal["small", "middle", "large", "pnas"]

Calibration = Literal["needed", "always"]


class CellScale(BaseModel):
    """The scale of a network.

    layers: N, normal cells of a stage (3N + 2 cells in all); channels: C of the first stage.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layers: Annotated[int, Field(gt=0, le=1000)]
    channels: Width


class NaoCell(SearchSpace):
    """``nao_cell``: the space of NAO-V2's released code (Luo et al., arXiv 1909.10815).

    The choices of an architecture are the 40 integers of a released architecture string: four a
    node (x input, x operation, y input, y operation), normal cell first.

    calibration: ``needed``: an input of the right shape enters a cell as it is. ``always``: it
    passes ReLU, 1×1 convolution and batch norm, as in the networks of DARTS' released code.
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
        calibration: Calibration = "needed",
    ) -> None:
        self.name = f"nao_cell/{operations}/{nodes}"
        self.operations = OPERATION_SETS[operations]
        self.nodes = nodes
        self.stem: StemKind = stem
        self.calibration: Calibration = calibration
        self.scales: dict[Scale, CellScale] = {"search": search, "final": final}
        # In the supernet branch i of a cell may read from i + 2 places.
        in_a_cell = {"search": nodes * (nodes + 3) * len(self.operations), "final": 2 * nodes}
        for scale, size in self.scales.items():
            count = (3 * size.layers + 2) * in_a_cell[scale]
            if count > MAX_OPERATIONS:
                raise UserError(
                    f"search_space.{scale}.layers = {size.layers} with search_space.nodes = "
                    f"{nodes} makes a network of {count:,} operations; at most "
                    f"{MAX_OPERATIONS:,} are built: lower one of them"
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
        """Return the nodes of the normal and of the reduction cell."""
        half = len(architecture.choices) // 2
        return nodes_of(architecture.choices[:half]), nodes_of(architecture.choices[half:])

    def _plan(self, problem: Problem, scale: Scale, concat: tuple[int, int]) -> NetworkPlan:
        size = self.scales[scale]
        return plan_network(
            problem,
            layers=size.layers,
            channels=size.channels,
            stem=self.stem,
            concat=concat,
            calibrate_always=self.calibration == "always",
        )

    def _plan_of(self, architecture: Architecture, problem: Problem, scale: Scale) -> NetworkPlan:
        normal, reduction = self.cells(architecture)
        return self._plan(
            problem, scale, (len(unused_states(normal)), len(unused_states(reduction)))
        )

    def plan_of_supernet(self, problem: Problem) -> NetworkPlan:
        """Plan the supernet, whose cells all have C outputs; raises UserError for small images."""
        return self._plan(problem, "search", (1, 1))

    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> NaoSupernet:
        plan = self.plan_of_supernet(problem)
        return NaoSupernet(plan, self.nodes, self.operations, auxiliary=auxiliary)

    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> NaoNetwork:
        plan = self._plan_of(self.check(architecture), problem, scale)
        return NaoNetwork(plan, self.cells(architecture), self.operations, auxiliary=auxiliary)

    def layers(
        self, architecture: Architecture, problem: Problem, scale: Scale = "search"
    ) -> list[Layer]:
        """List stem, operations of nodes, calibrations of inputs and outputs, and head.

        Names contain the operation, its channels, the input's side and, for operations of nodes,
        the
        stride: ``nao_cell/sep_conv_3x3 36 32 s1``. Sums belong to no layer.
        """
        plan = self._plan_of(architecture, problem, scale)
        return list_layers(plan, self.cells(architecture), self.operations)

    def cost_bound(self, problem: Problem, scale: Scale = "search") -> Cost:
        """Sum the most expensive option of every branch and the widest output of every cell.

        At least one of the two inputs is read, so at most nodes + 1 states are left unused.
        """
        widest = self.nodes + 1
        plan = self._plan(problem, scale, (widest, widest))
        costs = [count_layers([stem_layer("nao_cell", plan), head_layer("nao_cell", plan)])]
        for cell in plan.cells:
            costs.append(count_layers(calibration_layers(cell)))
            if cell.reduction:
                costs.append(count_layers([reduce_layer(cell)]))
            for node in range(self.nodes):
                options = [
                    count_layers([branch_layer(cell, name, source)])
                    for source in range(node + 2)
                    for name in self.operations
                ]
                params = max(option.params for option in options)
                macs = max(option.macs for option in options)
                costs += [Cost(params, macs)] * 2
        return sum_costs(costs)

    def canonical(self, architecture: Architecture) -> Architecture:
        """Put the smaller branch of a node first; branches are summed, so their order is free."""
        choices: list[int] = []
        for nodes in self.cells(architecture):
            for node in nodes:
                for branch in sorted(node):
                    choices += branch
        return Architecture(self.name, tuple(choices))

    def equivalent(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """Swap the branches of one random node of each cell (NAO's augmentation)."""
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

    def graphs(
        self, architecture: Architecture, problem: Problem, scale: Scale = "final"
    ) -> dict[str, Graph]:
        """Both cells, each operation on its edge; the output is made of all unused states."""
        states = ("cell k-2", "cell k-1", *(f"node {node}" for node in range(self.nodes)))
        found = {}
        for name, nodes in zip(
            ("normal cell", "reduction cell"), self.cells(architecture), strict=True
        ):
            edges = [
                (branch.input, index + 2, words(self.operations[branch.op]))
                for index, node in enumerate(nodes)
                for branch in node
            ]
            edges += [(state, len(states), "") for state in unused_states(nodes)]
            found[name] = Graph((*states, "output"), edges)
        return found
