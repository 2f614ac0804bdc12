"""The space of general cells, for architectures that are given in DARTS' notation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import product
from math import prod
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from nasrun.errors import UserError
from nasrun.search_space.additive import AdditiveSpace
from nasrun.search_space.base import Scale
from nasrun.search_space.darts_cell.space import DartsScale
from nasrun.search_space.gates import BINARY, GateKind
from nasrun.search_space.general_cell.network import GeneralNetwork, GeneralSupernet
from nasrun.search_space.general_cell.operations import NONE, OPERATION_NAMES
from nasrun.search_space.general_cell.plan import list_layers, plan_network
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
    genotype_of,
    read_genotype,
)
from nasrun.search_space.graph import Graph, words
from nasrun.search_space.layer import Layer
from nasrun.search_space.stacked_cells import NetworkPlan, StemKind
from nasrun.values import Architecture, Decision, Problem

MAX_OPERATIONS = 50_000
"""Upper bound of the operations of a supernet."""


class GeneralCell(AdditiveSpace):
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
        states = self._states()
        found: list[Decision] = []
        for cell in CELLS:
            for node in range(self.nodes):
                for edge in range(self.edges):
                    name = f"{cell}/node{node}/edge{edge}"
                    found.append(Decision(f"{name}/input", tuple(states[: node + INPUTS])))
                    found.append(Decision(f"{name}/op", OPERATION_NAMES))
            found += (Decision(f"{cell}/node{node}/output", BINARY) for node in range(self.nodes))
        return tuple(found)

    def _states(self) -> list[str]:
        return ["cell k-2", "cell k-1", *(f"node {node}" for node in range(self.nodes))]

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

    def _ways(self, group: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """Yield all choices of a group; a cell puts out one node at least."""
        counts = (range(len(self.decisions[index].options)) for index in group)
        is_output = self.decisions[group[0]].options == BINARY
        return (choices for choices in product(*counts) if not is_output or any(choices))

    @property
    def size(self) -> int:
        edges = prod(
            ((node + INPUTS) * len(OPERATION_NAMES)) ** self.edges for node in range(self.nodes)
        )
        return int((edges * (2**self.nodes - 1)) ** len(CELLS))

    def every(self) -> Iterator[Architecture]:
        for parts in product(*(list(self._ways(group)) for group in self.groups)):
            yield Architecture(self.name, tuple(choice for part in parts for choice in part))

    def variants(self, start: Architecture, group: tuple[int, ...]) -> Iterator[Architecture]:
        """Yield ``start`` with all choices of a group of ``groups``."""
        before, after = start.choices[: group[0]], start.choices[group[-1] + 1 :]
        for choices in self._ways(group):
            yield Architecture(self.name, (*before, *choices, *after))

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

    def operations_of(self, architecture: Architecture) -> list[str]:
        """List the operations that are there."""
        return [
            entry.operation
            for cell in self.genotype(architecture).cells
            for node in cell.nodes
            for entry in node
            if entry.operation != NONE
        ]

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
        """Return both cells of an architecture."""
        return genotype_of_choices(architecture.choices, self.nodes, self.edges)

    def _plan(self, problem: Problem, scale: Scale, outputs: tuple[int, int]) -> NetworkPlan:
        size = self.scales[scale]
        return plan_network(
            problem, cells=size.cells, channels=size.channels, stem=self.stem, outputs=outputs
        )

    def _plan_of(self, genotype: Genotype, problem: Problem, scale: Scale) -> NetworkPlan:
        outputs = len(genotype.normal.concat), len(genotype.reduce.concat)
        return self._plan(problem, scale, outputs)

    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> GeneralSupernet:
        plan = self._plan(problem, "search", (self.nodes, self.nodes))
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
        plan = self._plan_of(genotype, problem, scale)
        return GeneralNetwork(plan, genotype, auxiliary=auxiliary)

    def layers(
        self, architecture: Architecture, problem: Problem, scale: Scale = "search"
    ) -> list[Layer]:
        """List stem, calibrations of cell inputs, operations, and head.

        Names contain the operation, its channels, the input's side and, of operations on edges, the
        stride: ``general_cell/sep_conv_7x7 36 32 s1``. Sums belong to no layer.
        """
        genotype = self.genotype(architecture)
        return list_layers(self._plan_of(genotype, problem, scale), genotype)

    def describe(self, architecture: Architecture) -> list[str]:
        lines, states = [], self._states()
        for title, cell in zip(
            ("normal cell", "reduction cell"), self.genotype(architecture).cells, strict=True
        ):
            lines.append(title)
            for index, node in enumerate(cell.nodes):
                terms = [f"{e.operation}({states[e.state]})" for e in node if e.operation != NONE]
                lines.append(f"  node {index} = {' + '.join(terms) or 'zeros'}")
            lines.append(f"  output = concat({', '.join(states[state] for state in cell.concat)})")
        return lines

    def graphs(
        self, architecture: Architecture, problem: Problem, scale: Scale = "final"
    ) -> dict[str, Graph]:
        """Both cells, each operation on its edge; a node that sums nothing is zeros."""
        found = {}
        for name, cell in zip(
            ("normal cell", "reduction cell"), self.genotype(architecture).cells, strict=True
        ):
            edges = [
                (entry.state, index + INPUTS, words(entry.operation))
                for index, node in enumerate(cell.nodes)
                for entry in node
                if entry.operation != NONE
            ]
            read = {target for _, target, _ in edges}
            labels = self._states()[: len(cell.nodes) + INPUTS]
            labels = [
                label if at < INPUTS or at in read else f"{label}\nzeros"
                for at, label in enumerate(labels)
            ]
            edges += [(state, len(labels), "") for state in cell.concat]
            found[name] = Graph((*labels, "output"), edges)
        return found

    def write(self, architecture: Architecture) -> str:
        return self.genotype(architecture).write()

    def read(self, value: Any) -> Architecture:
        """Read what other spaces read, and a dictionary with the fields of a genotype."""
        if isinstance(value, Mapping) and "normal" in value:
            return self.of_genotype(genotype_of(value))
        return super().read(value)

    def parse(self, text: str) -> Architecture:
        """``Genotype(...)``, or all choices as numbers. Raises UserError for anything else."""
        if "Genotype" not in text:
            return super().parse(text)
        return self.of_genotype(read_genotype(text))

    def of_genotype(self, genotype: Genotype) -> Architecture:
        """Return the architecture of a genotype; raises UserError if it is none of this space."""
        choices = choices_of_genotype(genotype, self.nodes, self.edges)
        return self.check(Architecture(self.name, choices))
