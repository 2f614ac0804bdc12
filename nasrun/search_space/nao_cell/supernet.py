"""The supernet of ``nao_cell``: every branch owns weights for each of its possible inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasrun.search_space.base import Supernet
from nasrun.search_space.gates import Gates, single_path
from nasrun.search_space.nao_cell.cell import (
    Node,
    calibrations,
    initialise,
    nodes_of,
    unused_states,
)
from nasrun.search_space.noise import Noise
from nasrun.search_space.operation import OPERATIONS, FactorizedReduce
from nasrun.search_space.stacked_cells import CellPlan, CellStack, NetworkPlan


class SupernetBranch(nn.Module):
    """All operations on all inputs that a branch of a node may choose."""

    def __init__(self, inputs: int, plan: CellPlan, operations: Sequence[str]) -> None:
        super().__init__()
        self.options = nn.ModuleList(
            nn.ModuleList(
                OPERATIONS[op].module(plan.channels, 2 if plan.reduction and source < 2 else 1)
                for op in operations
            )
            for source in range(inputs)
        )

    def forward(self, states: Sequence[Tensor], source: int, op: int) -> Tensor:
        out: Tensor = self.options[source][op](states[source])  # type: ignore[index]
        return out


class Combine(nn.Module):
    """Maps the unused states to C channels by ReLU, 1×1 convolution and batch norm.

    The convolution's weight is put together from one C×C slice for each unused state, so that
    every supernet cell has C outputs whatever the architecture (NAO-V2's released code). In a
    reduction cell the two inputs are first brought to the output's resolution.
    """

    def __init__(self, states: int, plan: CellPlan) -> None:
        super().__init__()
        channels = plan.channels
        self.slices = nn.ParameterList(
            nn.Parameter(torch.empty(channels, channels, 1, 1)) for _ in range(states)
        )
        self.norm = nn.BatchNorm2d(channels)
        self.reduce = nn.ModuleList(
            FactorizedReduce(channels, channels) for _ in range(2 if plan.reduction else 0)
        )

    def forward(self, states: Sequence[Tensor], unused: Sequence[int]) -> Tensor:
        maps = [
            self.reduce[state](states[state]) if state < len(self.reduce) else states[state]
            for state in unused
        ]
        weight = torch.cat([self.slices[state] for state in unused], dim=1)
        out: Tensor = self.norm(F.conv2d(F.relu(torch.cat(maps, dim=1)), weight))
        return out


class SupernetCell(nn.Module):
    """[B, C', H', W'] of cells k-2 and k-1 -> [B, C, H, W], along one path."""

    def __init__(self, plan: CellPlan, nodes: int, operations: Sequence[str]) -> None:
        super().__init__()
        self.calibrate = nn.ModuleList(calibrations(plan))
        self.branches = nn.ModuleList(
            SupernetBranch(node + 2, plan, operations) for node in range(nodes) for _ in "xy"
        )
        self.combine = Combine(nodes + 2, plan)

    def forward(
        self, before: Tensor, last: Tensor, nodes: Sequence[Node], noise: Noise, depth: float
    ) -> Tensor:
        states = [self.calibrate[0](before), self.calibrate[1](last)]
        for index, (x, y) in enumerate(nodes):
            left = self.branches[2 * index](states, x.input, x.op)
            right = self.branches[2 * index + 1](states, y.input, y.op)
            states.append(noise.drop_path(left, depth) + noise.drop_path(right, depth))
        out: Tensor = self.combine(states, unused_states(nodes))
        return out


class NaoSupernet(CellStack, Supernet):
    """All architectures of ``nao_cell``: images and the genes of both cells -> logits [B, K].

    Batch norm has running statistics for each input of an operation; in the released code all
    inputs share one pair. With batch statistics, by which the paper scores, both are equal.
    """

    def __init__(
        self,
        plan: NetworkPlan,
        nodes: int,
        operations: Sequence[str],
        *,
        auxiliary: bool,
    ) -> None:
        modules = (SupernetCell(cell, nodes, operations) for cell in plan.cells)
        super().__init__(plan, modules, auxiliary=auxiliary)
        initialise(self)

    def option_modules(self) -> Iterator[tuple[nn.Module, list[tuple[int, int]]]]:
        """Yield every operation of a branch with its choices of input and of operation."""
        for cell, reduction in zip(self.cells, self.reductions, strict=True):
            branches = cell.branches
            start = 2 * len(branches) if reduction else 0  # type: ignore[arg-type]
            for index, branch in enumerate(branches):  # type: ignore[arg-type]
                place = start + 2 * index
                for source, operations in enumerate(branch.options):
                    for op, module in enumerate(operations):
                        yield module, [(place, source), (place + 1, op)]

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        path = single_path(gates)
        half = len(path) // 2
        nodes = nodes_of(path[:half]), nodes_of(path[half:])

        def run_cell(index: int, before: Tensor, last: Tensor, depth: float) -> Tensor:
            chosen = nodes[self.reductions[index]]
            out: Tensor = self.cells[index](before, last, chosen, self.noise, depth)
            return out

        return self.logits(x, run_cell)
