"""The supernet of ``darts_cell`` and its stand-alone networks.

Both are one stack of cells with more or fewer operations on each edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from nasrun.search_space.base import Supernet
from nasrun.search_space.darts_cell.edge import Edge, PartialEdge
from nasrun.search_space.darts_cell.operations import calibrations
from nasrun.search_space.darts_cell.wiring import edges_of
from nasrun.search_space.gates import Gates
from nasrun.search_space.noise import Noise
from nasrun.search_space.operation import remove_affine
from nasrun.search_space.stacked_cells import CellPlan, CellStack, NetworkPlan
from nasrun.search_space.stages import reduced_side

MakeEdge = Callable[[int, int, Iterable[int]], Edge]
"""(channels, stride, options) -> the module of an edge."""


class Cell(nn.Module):
    """[B, C', H', W'] of cells k-2 and k-1 -> [B, C·nodes, H, W], all nodes concatenated.

    A node is the sum over its edges; without edges it is zeros.
    """

    def __init__(
        self, plan: CellPlan, nodes: int, options: Sequence[Iterable[int]], make_edge: MakeEdge
    ) -> None:
        """Build the options that each edge has."""
        super().__init__()
        self.nodes = nodes
        self.stride = 2 if plan.reduction else 1
        self.calibrate = nn.ModuleList(calibrations(plan))
        self.edges = nn.ModuleList(
            make_edge(plan.channels, self.stride if state < 2 else 1, present)
            for (_, state), present in zip(edges_of(nodes), options, strict=True)
        )

    def forward(self, before: Tensor, last: Tensor, gates: Gates, noise: Noise) -> Tensor:
        states = [self.calibrate[0](before), self.calibrate[1](last)]
        edges = zip(self.edges, gates, strict=True)
        for _ in range(self.nodes):
            total: Tensor | None = None
            for state, (edge, gate) in zip(tuple(states), edges, strict=False):
                term = edge(state, gate, noise)
                if term is not None:
                    total = term if total is None else total + term
            states.append(self._zeros(states[0]) if total is None else total)
        return torch.cat(states[2:], dim=1)

    def _zeros(self, x: Tensor) -> Tensor:
        height, width = (reduced_side(side, self.stride) for side in x.shape[2:])
        return x.new_zeros((*x.shape[:2], height, width))


class DartsStack(CellStack):
    """A stack whose cells of a kind have the same gates.

    Weights are initialised by torch's defaults, as in the released code. On ImageNet that code also
    has one batch norm less in the auxiliary head.
    """

    def __init__(self, plan: NetworkPlan, cells: Iterable[nn.Module], *, auxiliary: bool) -> None:
        last_norm = plan.kind != "imagenet"
        super().__init__(plan, cells, auxiliary=auxiliary, auxiliary_last_norm=last_norm)

    def run(self, x: Tensor, gates: Gates) -> Tensor:
        """x [B, C, H, W] and the gates of both cells -> [B, K]."""
        half = len(gates) // 2
        of_kind = gates[:half], gates[half:]

        def run_cell(index: int, before: Tensor, last: Tensor, depth: float) -> Tensor:
            gates_of_cell = of_kind[self.reductions[index]]
            out: Tensor = self.cells[index](before, last, gates_of_cell, self.noise)
            return out

        return self.logits(x, run_cell)


class DartsNetwork(DartsStack):
    """The network of one architecture: [B, C, H, W] -> [B, K]."""

    def __init__(
        self,
        plan: NetworkPlan,
        choices: Sequence[int],
        nodes: int,
        *,
        auxiliary: bool,
    ) -> None:
        def make_edge(channels: int, stride: int, options: Iterable[int]) -> Edge:
            return Edge(channels, stride, options, norm_pools=False)

        half = len(choices) // 2
        of_kind = choices[:half], choices[half:]
        cells = (
            Cell(cell, nodes, [(choice,) for choice in of_kind[cell.reduction]], make_edge)
            for cell in plan.cells
        )
        super().__init__(plan, cells, auxiliary=auxiliary)
        self.choices = tuple(choices)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x, self.choices)


class DartsSupernet(DartsStack, Supernet):
    """All operations of every edge: images and the gates of both cells -> logits [B, K].

    The weights have the names that they have in a stand-alone network: each operation has its
    number among all, whatever its number among the options of its edge.
    """

    def __init__(
        self,
        plan: NetworkPlan,
        nodes: int,
        *,
        auxiliary: bool,
        affine: bool,
        partial_channels: int,
        numbers: Sequence[Sequence[int]],
    ) -> None:
        """Build all operations of every edge.

        numbers: those of the operations that are the options of each edge, of both cells.
        affine: whether the batch norms of the cells scale and shift.
        partial_channels: K; one K-th of the channels goes through the operations.
        """

        def make_edge(channels: int, stride: int, options: Iterable[int]) -> Edge:
            if partial_channels == 1:
                return Edge(channels, stride, options, norm_pools=True)
            return PartialEdge(channels, stride, options, divisor=partial_channels)

        half = len(numbers) // 2
        of_kind = numbers[:half], numbers[half:]
        cells = [Cell(cell, nodes, of_kind[cell.reduction], make_edge) for cell in plan.cells]
        if not affine:
            for cell in cells:
                remove_affine(cell)
        super().__init__(plan, cells, auxiliary=auxiliary)
        self.numbers = numbers
        self._as_they_are = all(list(row) == list(range(len(row))) for row in numbers)

    def option_modules(self) -> Iterator[tuple[nn.Module, list[tuple[int, int]]]]:
        for cell, reduction in zip(self.cells, self.reductions, strict=True):
            edges = cell.edges
            start = len(edges) if reduction else 0  # type: ignore[arg-type]
            for index, edge in enumerate(edges):  # type: ignore[arg-type]
                for number, module in edge.options.items():
                    option = list(self.numbers[start + index]).index(int(number))
                    yield module, [(start + index, option)]

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        if not self._as_they_are:
            gates = [
                row[gate] if isinstance(gate, int) else {row[o]: w for o, w in gate.items()}
                for row, gate in zip(self.numbers, gates, strict=True)
            ]
        return self.run(x, gates)
