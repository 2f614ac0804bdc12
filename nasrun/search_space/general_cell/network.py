"""The stand-alone networks of ``general_cell``, and its supernet, which trains paths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from nasrun.search_space.base import Supernet
from nasrun.search_space.darts_cell.operations import calibrations
from nasrun.search_space.gates import Gates, single_path
from nasrun.search_space.general_cell.operations import NODE_OPERATIONS, OPERATION_NAMES
from nasrun.search_space.general_cell.wiring import choices_of_a_cell, genotype_of_choices
from nasrun.search_space.genotype import INPUTS, NONE, Entry, Genotype, GenotypeCell
from nasrun.search_space.noise import Noise
from nasrun.search_space.stacked_cells import CellPlan, CellStack, NetworkPlan
from nasrun.search_space.stages import reduced_side

Operation = Callable[[int, int, Entry], nn.Module]
"""(node, place among its entries, entry) -> the module of the entry."""


def run_cell(
    states: list[Tensor],
    cell: GenotypeCell,
    stride: int,
    operation: Operation,
    noise: Noise,
) -> list[Tensor]:
    """Return the states of a cell: its two inputs, then its nodes, which are sums.

    states: the calibrated inputs. A node without entries is zeros. All operations but the plain
    skip have drop-path, as in the released code of DARTS.
    """
    height, width = (reduced_side(side, stride) for side in states[0].shape[2:])
    for index, node in enumerate(cell.nodes):
        total: Tensor | None = None
        for place, entry in enumerate(node):
            if entry.operation == NONE:
                continue
            module = operation(index, place, entry)
            term = module(states[entry.state])
            if not isinstance(module, nn.Identity):
                term = noise.drop_path(term, 1.0)
            total = term if total is None else total + term
        if total is None:
            total = states[0].new_zeros((*states[0].shape[:2], height, width))
        states.append(total)
    return states


class Cell(nn.Module):
    """[B, C', H', W'] of cells k-2 and k-1 -> [B, C·outputs, H, W]."""

    def __init__(self, plan: CellPlan, cell: GenotypeCell) -> None:
        super().__init__()
        self.cell, self.stride = cell, 2 if plan.reduction else 1
        self.calibrate = nn.ModuleList(calibrations(plan))
        self.nodes = nn.ModuleList(
            nn.ModuleList(
                nn.Identity()  # is not called
                if entry.operation == NONE
                else NODE_OPERATIONS[entry.operation].module(
                    plan.channels, self.stride if entry.state < INPUTS else 1
                )
                for entry in node
            )
            for node in cell.nodes
        )

    def forward(self, before: Tensor, last: Tensor, noise: Noise) -> Tensor:
        def operation(node: int, place: int, entry: Entry) -> nn.Module:
            found: nn.Module = self.nodes[node][place]  # type: ignore[index]
            return found

        states = [self.calibrate[0](before), self.calibrate[1](last)]
        states = run_cell(states, self.cell, self.stride, operation, noise)
        return torch.cat([states[state] for state in self.cell.concat], dim=1)


class SupernetCell(nn.Module):
    """[B, C', H', W'] of cells k-2 and k-1 -> [B, C·nodes, H, W], along one path.

    Nodes that are not put out are zeros in the output, so that its width is always the same.
    """

    def __init__(self, plan: CellPlan, nodes: int, edges: int) -> None:
        super().__init__()
        self.node_count, self.stride = nodes, 2 if plan.reduction else 1
        self.calibrate = nn.ModuleList(calibrations(plan))
        self.nodes = nn.ModuleList(
            nn.ModuleList(
                nn.ModuleList(self._options(plan.channels, state) for state in range(node + INPUTS))
                for _ in range(edges)
            )
            for node in range(nodes)
        )

    def _options(self, channels: int, state: int) -> nn.ModuleDict:
        stride = self.stride if state < INPUTS else 1
        return nn.ModuleDict(
            {
                name: operation.module(channels, stride)
                for name, operation in NODE_OPERATIONS.items()
                if name != NONE
            }
        )

    def forward(self, before: Tensor, last: Tensor, cell: GenotypeCell, noise: Noise) -> Tensor:
        def operation(node: int, place: int, entry: Entry) -> nn.Module:
            found: nn.Module = self.nodes[node][place][entry.state][entry.operation]  # type: ignore[index]
            return found

        states = [self.calibrate[0](before), self.calibrate[1](last)]
        states = run_cell(states, cell, self.stride, operation, noise)
        zeros = torch.zeros_like(states[cell.concat[0]])
        return torch.cat(
            [
                states[state] if state in cell.concat else zeros
                for state in range(INPUTS, self.node_count + INPUTS)
            ],
            dim=1,
        )


class GeneralStack(CellStack):
    """A stack of general cells; weights begin as torch makes them, as in DARTS' released code."""

    def __init__(self, plan: NetworkPlan, cells: Iterable[nn.Module], *, auxiliary: bool) -> None:
        last_norm = plan.kind != "imagenet"
        super().__init__(plan, cells, auxiliary=auxiliary, auxiliary_last_norm=last_norm)


class GeneralNetwork(GeneralStack):
    """The network of one architecture: [B, C, H, W] -> [B, K]."""

    def __init__(self, plan: NetworkPlan, genotype: Genotype, *, auxiliary: bool) -> None:
        cells = (Cell(cell, genotype.cells[cell.reduction]) for cell in plan.cells)
        super().__init__(plan, cells, auxiliary=auxiliary)

    def forward(self, x: Tensor) -> Tensor:
        def run(index: int, before: Tensor, last: Tensor, depth: float) -> Tensor:
            out: Tensor = self.cells[index](before, last, self.noise)
            return out

        return self.logits(x, run)


class GeneralSupernet(GeneralStack, Supernet):
    """All architectures of ``general_cell``; each edge has weights for each of its inputs."""

    def __init__(self, plan: NetworkPlan, nodes: int, edges: int, *, auxiliary: bool) -> None:
        cells = (SupernetCell(cell, nodes, edges) for cell in plan.cells)
        super().__init__(plan, cells, auxiliary=auxiliary)
        self.node_count, self.edge_count = nodes, edges

    def option_modules(self) -> Iterator[tuple[nn.Module, list[tuple[int, int]]]]:
        """Yield every operation of an edge with its choices of input and of operation."""
        half = choices_of_a_cell(self.node_count, self.edge_count)
        for cell, reduction in zip(self.cells, self.reductions, strict=True):
            place = half if reduction else 0
            for node in cell.nodes:  # type: ignore[union-attr]
                for edge in node:
                    for state, options in enumerate(edge):
                        for name, module in options.items():
                            op = OPERATION_NAMES.index(name)
                            yield module, [(place, state), (place + 1, op)]
                    place += 2

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        path = single_path(gates)
        genotype = genotype_of_choices(path, self.node_count, self.edge_count)

        def run(index: int, before: Tensor, last: Tensor, depth: float) -> Tensor:
            cell = genotype.cells[self.reductions[index]]
            out: Tensor = self.cells[index](before, last, cell, self.noise)
            return out

        return self.logits(x, run)
