"""The stand-alone network of an architecture of ``nao_cell``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nasrun.search_space.nao_cell.cell import (
    Node,
    calibrations,
    initialise,
    unused_states,
)
from nasrun.search_space.noise import Noise
from nasrun.search_space.operation import OPERATIONS, FactorizedReduce
from nasrun.search_space.stacked_cells import CellPlan, CellStack, NetworkPlan


class Cell(nn.Module):
    """One cell: [B, C', H', W'] of cells k-2 and k-1 -> [B, C·states, H, W]."""

    def __init__(self, plan: CellPlan, nodes: Sequence[Node], operations: Sequence[str]) -> None:
        super().__init__()
        self.nodes = nodes
        self.calibrate = nn.ModuleList(calibrations(plan))
        self.branches = nn.ModuleList(
            OPERATIONS[operations[branch.op]].module(
                plan.channels, 2 if plan.reduction and branch.input < 2 else 1
            )
            for node in nodes
            for branch in node
        )
        self.output_states = unused_states(nodes)
        self.reduce = nn.ModuleDict(
            {
                str(state): FactorizedReduce(plan.channels, plan.channels)
                for state in self.output_states
                if plan.reduction and state < 2
            }
        )

    def forward(self, before: Tensor, last: Tensor, noise: Noise, depth: float) -> Tensor:
        states = [self.calibrate[0](before), self.calibrate[1](last)]
        for index, (x, y) in enumerate(self.nodes):
            left = self.branches[2 * index](states[x.input])
            right = self.branches[2 * index + 1](states[y.input])
            states.append(noise.drop_path(left, depth) + noise.drop_path(right, depth))
        return torch.cat(
            [
                self.reduce[str(state)](states[state])
                if str(state) in self.reduce
                else states[state]
                for state in self.output_states
            ],
            dim=1,
        )


class NaoNetwork(CellStack):
    """The network of one architecture: [B, C, H, W] -> [B, K]."""

    def __init__(
        self,
        plan: NetworkPlan,
        cells: tuple[Sequence[Node], Sequence[Node]],
        operations: Sequence[str],
        *,
        auxiliary: bool,
    ) -> None:
        """Build the network; cells: nodes of the normal and of the reduction cell."""
        modules = (Cell(cell, cells[cell.reduction], operations) for cell in plan.cells)
        super().__init__(plan, modules, auxiliary=auxiliary)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        def run_cell(index: int, before: Tensor, last: Tensor, depth: float) -> Tensor:
            out: Tensor = self.cells[index](before, last, self.noise, depth)
            return out

        return self.logits(x, run_cell)
