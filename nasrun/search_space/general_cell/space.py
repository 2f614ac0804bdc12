"""The space of general cells, for architectures that are given in DARTS' notation."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from math import prod
from typing import Annotated

import numpy as np
from pydantic import Field

from nasrun.errors import UserError
from nasrun.search_space.base import Scale
from nasrun.search_space.gates import BINARY, GateKind
from nasrun.search_space.general_cell.network import GeneralNetwork, GeneralSupernet
from nasrun.search_space.general_cell.operations import NODE_OPERATIONS, OPERATION_NAMES
from nasrun.search_space.general_cell.wiring import (
    choices_of_a_cell,
    choices_of_genotype,
    genotype_of_choices,
    sorted_entries,
)
from nasrun.search_space.genotype import (
    CELLS,
    INPUTS,
    MAX_EDGES,
    MAX_NODES,
    Genotype,
)
from nasrun.search_space.genotype_space import DartsScale, GenotypeSpace
from nasrun.search_space.stacked_cells import StemKind
from nasrun.values import Architecture, Decision, Problem

MAX_OPERATIONS = 50_000
"""Upper bound of the operations of a supernet."""


class GeneralCell(GenotypeSpace):
    """``general_cell``: cells as public genotypes have them, in the networks of DARTS.

    A node sums up to ``edges`` operations on any earlier states, also on one state twice; a cell
    puts out those of its nodes that the architecture names. So NASNet's, AmoebaNet's and
    FairDARTS' cells are architectures of it, which are trained and measured like DARTS' own. It is
    written ``Genotype(normal=[('sep_conv_5x5', 1), ...], normal_concat=[2, 4], ...)``.

    A search works, too, with a supernet that shares weights between cells that agree; the space
    to search NASNet's cells in is ``nao_cell``, where loose ends are put out.

    nodes: nodes of a cell, at most. edges: operations that a node sums, at most.
    stem: ``small`` for images of CIFAR's size, or ``imagenet``.
    """

    gate_kinds: frozenset[GateKind] = frozenset({"path"})
    operations_by_name = NODE_OPERATIONS

    def __init__(
        self,
        *,
        nodes: Annotated[int, Field(gt=0, le=MAX_NODES)],
        edges: Annotated[int, Field(gt=0, le=MAX_EDGES)],
        stem: StemKind,
        search: DartsScale,
        final: DartsScale,
    ) -> None:
        self.name = f"general_cell/{nodes}x{edges}"
        self.nodes, self.edges = nodes, edges
        self.stem: StemKind = stem
        self.scales: dict[Scale, DartsScale] = {"search": search, "final": final}

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        states = self.states
        found: list[Decision] = []
        for cell in CELLS:
            for node in range(self.nodes):
                for edge in range(self.edges):
                    name = f"{cell}/node{node}/edge{edge}"
                    found.append(Decision(f"{name}/input", tuple(states[: node + INPUTS])))
                    found.append(Decision(f"{name}/op", OPERATION_NAMES))
            found += (Decision(f"{cell}/node{node}/output", BINARY) for node in range(self.nodes))
        return tuple(found)

    @cached_property
    def additive(self) -> tuple[tuple[int, ...], ...]:
        """Groups of the input and the operation of an edge, and of the outputs of a cell."""
        half, edges = choices_of_a_cell(self.nodes, self.edges), self.nodes * self.edges
        return tuple(
            group
            for start in (0, half)
            for group in (
                *((start + 2 * edge, start + 2 * edge + 1) for edge in range(edges)),
                tuple(range(start + 2 * edges, start + half)),
            )
        )

    def ways(self, group: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """Yield all choices of a group; a cell puts out one node at least."""
        is_output = self.decisions[group[0]].options == BINARY
        return (choices for choices in super().ways(group) if not is_output or any(choices))

    @property
    def size(self) -> int:
        edges = prod(
            ((node + INPUTS) * len(OPERATION_NAMES)) ** self.edges for node in range(self.nodes)
        )
        return int((edges * (2**self.nodes - 1)) ** len(CELLS))

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Sample every decision uniformly; a cell without an output gets one."""
        return self.repair(super().sample(rng), rng)

    def repair(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """Open a random output of a cell that has none."""
        choices = list(architecture.choices)
        for group in self._outputs:
            if not any(choices[index] for index in group):
                choices[int(rng.choice(group))] = 1
        return Architecture(self.name, tuple(choices))

    @property
    def _outputs(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The decisions on the outputs of the normal and of the reduction cell."""
        half = len(self.groups) // 2
        return self.groups[half - 1], self.groups[-1]

    def check(self, architecture: Architecture) -> Architecture:
        """Check as all spaces do; raises UserError also if a cell puts out nothing."""
        super().check(architecture)
        for cell, group in zip(CELLS, self._outputs, strict=True):
            if not any(architecture.choices[index] for index in group):
                raise UserError(f"the {cell} cell puts out none of its nodes")
        return architecture

    def canonical(self, architecture: Architecture) -> Architecture:
        """Put the edges of a node in order; they are summed, so their order is free."""
        half = len(architecture.choices) // 2
        cells = architecture.choices[:half], architecture.choices[half:]
        choices = (c for cell in cells for c in sorted_entries(cell, self.nodes, self.edges))
        return Architecture(self.name, tuple(choices))

    def genotype(self, architecture: Architecture) -> Genotype:
        return genotype_of_choices(architecture.choices, self.nodes, self.edges)

    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> GeneralSupernet:
        plan = self.plan(problem, "search", (self.nodes, self.nodes))
        states = sum(node + INPUTS for node in range(self.nodes))
        count = len(plan.cells) * states * self.edges * (len(OPERATION_NAMES) - 1)
        if count > MAX_OPERATIONS:
            raise UserError(
                f"a supernet of {self.name} with search_space.search.cells={len(plan.cells)} has "
                f"{count:,} operations; at most {MAX_OPERATIONS:,} are built: lower one of them"
            )
        return GeneralSupernet(plan, self.nodes, self.edges, auxiliary=auxiliary)

    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> GeneralNetwork:
        genotype = self.genotype(self.check(architecture))
        plan = self.plan_of(genotype, problem, scale)
        return GeneralNetwork(plan, genotype, auxiliary=auxiliary)

    def of_genotype(self, genotype: Genotype) -> Architecture:
        choices = choices_of_genotype(genotype, self.nodes, self.edges)
        return self.check(Architecture(self.name, choices))
