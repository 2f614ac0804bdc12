"""The search space of PNAS: one cell of one to five blocks, for both resolutions.

Its networks are those of ``nao_cell``; what is new is that the number of blocks is a decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import combinations_with_replacement, product
from typing import Annotated

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from nasrun.search_space.base import Network, Scale, SearchSpace
from nasrun.search_space.gates import GateKind, Gates, single_path
from nasrun.search_space.graph import Graph
from nasrun.search_space.layer import Layer
from nasrun.search_space.nao_cell.cell import Node, nodes_of
from nasrun.search_space.nao_cell.space import CellScale, NaoCell, OperationSet
from nasrun.search_space.nao_cell.supernet import NaoSupernet
from nasrun.search_space.stacked_cells import StemKind
from nasrun.values import Architecture, Cost, Decision, Problem

TOKENS = 4
"""Decisions of a block: x input, x operation, y input, y operation."""


class PnasCell(SearchSpace):
    """``pnas_cell``: cells of one block to several (Liu et al., ECCV 2018, arXiv 1712.00559).

    A block is the sum of two operations, each on an output of the two cells before or on an earlier
    block; all blocks that no other reads are concatenated. Normal and reduction cells are alike but
    for their stride. Decisions on blocks that a cell does not have are of no effect.

    It has ``GrowingCells``.
    """

    gate_kinds: frozenset[GateKind] = frozenset({"path"})

    def __init__(
        self,
        *,
        operations: OperationSet,
        blocks: Annotated[int, Field(gt=0, le=10)],
        stem: StemKind,
        search: CellScale,
        final: CellScale,
    ) -> None:
        self.name = f"pnas_cell/{operations}/{blocks}"
        self.most_blocks = blocks
        self.cells = [
            NaoCell(operations=operations, nodes=count, stem=stem, search=search, final=final)
            for count in range(1, blocks + 1)
        ]
        self.largest = self.cells[-1]

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        of_cell = self.largest.decisions[: TOKENS * self.most_blocks]
        counts = tuple(str(count) for count in range(1, self.most_blocks + 1))
        names = [decision.name.removeprefix("normal/") for decision in of_cell]
        return (
            Decision("cell/blocks", counts),
            *(
                Decision(f"cell/{name.replace('node', 'block')}", decision.options)
                for name, decision in zip(names, of_cell, strict=True)
            ),
        )

    @property
    def block_decisions(self) -> tuple[Decision, ...]:
        """The decisions of the last block, which have the most options."""
        return self.decisions[-TOKENS:]

    def blocks(self, architecture: Architecture) -> tuple[tuple[int, ...], ...]:
        """Return the choices of each block of the cell."""
        count, *genes = architecture.choices
        return tuple(tuple(genes[TOKENS * i : TOKENS * (i + 1)]) for i in range(count + 1))

    def of_blocks(self, blocks: Sequence[Sequence[int]]) -> Architecture:
        """Return the cell with these blocks; the decisions on others have their first option."""
        genes = [gene for block in blocks for gene in block]
        genes += [0] * (TOKENS * self.most_blocks - len(genes))
        return Architecture(self.name, (len(blocks) - 1, *genes))

    def first_cells(self) -> Iterator[Architecture]:
        """Yield all cells of one block, each network once."""
        yield from map(self.of_blocks, ([block] for block in self._new_blocks(0)))

    def grown(self, architecture: Architecture) -> Iterator[Architecture]:
        """Yield all cells with one block more; none if there may be no more."""
        before = self.blocks(architecture)
        if len(before) < self.most_blocks:
            for block in self._new_blocks(len(before)):
                yield self.of_blocks((*before, block))

    def _new_blocks(self, place: int) -> Iterator[tuple[int, ...]]:
        """Yield all blocks at a place, the order of their two branches aside."""
        branches = list(product(range(place + 2), range(len(self.largest.operations))))
        for x, y in combinations_with_replacement(branches, 2):
            yield (*x, *y)

    def _in_nao(self, architecture: Architecture) -> tuple[NaoCell, Architecture]:
        """Return the space of NAO that has the cell, and the cell as both of its cells."""
        blocks = self.blocks(architecture)
        space = self.cells[len(blocks) - 1]
        genes = tuple(gene for block in blocks for gene in block)
        return space, Architecture(space.name, genes + genes)

    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> PnasSupernet:
        plan = self.largest.plan_of_supernet(problem)
        return PnasSupernet(plan, self.most_blocks, self.largest.operations, auxiliary=auxiliary)

    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> Network:
        space, same = self._in_nao(self.check(architecture))
        return space.network(same, problem, scale, auxiliary=auxiliary)

    def layers(
        self, architecture: Architecture, problem: Problem, scale: Scale = "search"
    ) -> list[Layer]:
        """List the layers, as ``NaoCell.layers`` does and with its names."""
        space, same = self._in_nao(architecture)
        return space.layers(same, problem, scale)

    def cost_bound(self, problem: Problem, scale: Scale = "search") -> Cost:
        return self.largest.cost_bound(problem, scale)

    def operations_of(self, architecture: Architecture) -> list[str]:
        """List the operations of the blocks that the cell has."""
        names = self.largest.operations
        return [names[op] for block in self.blocks(architecture) for op in block[1::2]]

    def canonical(self, architecture: Architecture) -> Architecture:
        """Put the smaller branch of a block first, and first options where there is no block."""
        return self.of_blocks(
            [
                [gene for branch in sorted((block[:2], block[2:])) for gene in branch]
                for block in self.blocks(architecture)
            ]
        )

    def equivalent(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """Swap the branches of one random block."""
        blocks = [list(block) for block in self.blocks(architecture)]
        place = int(rng.integers(len(blocks)))
        blocks[place] = [*blocks[place][2:], *blocks[place][:2]]
        return self.of_blocks(blocks)

    def describe(self, architecture: Architecture) -> list[str]:
        space, same = self._in_nao(architecture)
        lines = space.describe(same)
        return ["cell", *lines[1 : len(lines) // 2]]

    def graphs(
        self, architecture: Architecture, problem: Problem, scale: Scale = "final"
    ) -> dict[str, Graph]:
        """The cell, each operation on its edge; the output is made of all unused states."""
        space, same = self._in_nao(architecture)
        return {"cell": space.graphs(same, problem, scale)["normal cell"]}


class PnasSupernet(NaoSupernet):
    """All cells of ``pnas_cell``: images and gates -> logits [B, K]."""

    def option_modules(self) -> Iterator[tuple[nn.Module, list[tuple[int, int]]]]:
        """Yield every operation of a branch with its choices of input and of operation."""
        count = 2 * len(self.cells[0].branches)  # type: ignore[arg-type]
        for module, owners in super().option_modules():  # of the reduction cell: from count on
            yield module, [(1 + decision % count, option) for decision, option in owners]

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        count, *genes = single_path(gates)
        nodes: list[Node] = nodes_of(genes[: TOKENS * (count + 1)])

        def run_cell(index: int, before: Tensor, last: Tensor, depth: float) -> Tensor:
            out: Tensor = self.cells[index](before, last, nodes, self.noise, depth)
            return out

        return self.logits(x, run_cell)
