"""Cells of NAO, stand-alone and in the supernet: genes, calibration, first weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from nasrun.search_space.operation import ReluConvNorm, ReluReduce
from nasrun.search_space.stacked_cells import CellPlan


class Branch(NamedTuple):
    """One of the two summands of a node. input: 0: cell k-2, 1: cell k-1, i + 2: node i."""

    input: int
    op: int


Node = tuple[Branch, Branch]


def nodes_of(genes: Sequence[int]) -> list[Node]:
    """Return the nodes of a cell from its genes, four a node: x input, x op, y input, y op."""
    return [
        (Branch(genes[i], genes[i + 1]), Branch(genes[i + 2], genes[i + 3]))
        for i in range(0, len(genes), 4)
    ]


def unused_states(nodes: Sequence[Node]) -> list[int]:
    """Return the states that no branch reads, in order; they form the cell's output."""
    used = {branch.input for node in nodes for branch in node}
    return [state for state in range(len(nodes) + 2) if state not in used]


def calibrations(plan: CellPlan) -> list[nn.Module]:
    """Bring the outputs of cells k-2 and k-1 to this cell's channels and one resolution."""
    return [
        ReluReduce(source.channels, plan.channels)
        if source.size != plan.size_in
        else ReluConvNorm(source.channels, plan.channels)
        if source.channels != plan.channels or plan.calibrate_always
        else nn.Identity()
        for source in plan.inputs
    ]


def initialise(network: nn.Module) -> None:
    """Initialise every parameter of two or more dimensions Kaiming-normal (NAO-V2's code)."""
    for parameter in network.parameters():
        if parameter.dim() >= 2:
            nn.init.kaiming_normal_(parameter)
