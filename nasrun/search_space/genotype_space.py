"""Search spaces whose architectures are genotypes: ``darts_cell`` and ``general_cell``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import product
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from nasrun.search_space.additive import AdditiveSpace
from nasrun.search_space.base import Scale
from nasrun.search_space.genotype import INPUTS, NONE, Genotype, genotype_of, read_genotype
from nasrun.search_space.graph import Graph, words
from nasrun.search_space.layer import Layer
from nasrun.search_space.operation import Operation
from nasrun.search_space.stacked_cells import (
    NetworkPlan,
    StemKind,
    calibration_layer,
    head_layer,
    operation_layer,
    stack_cells,
    stem_layer,
)
from nasrun.values import Architecture, Problem

TITLES = ("normal cell", "reduction cell")


class DartsScale(BaseModel):
    """The scale of a network. cells: of all stages; channels: C of the first stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cells: Annotated[int, Field(ge=3, le=100)]
    channels: Annotated[int, Field(ge=2, le=4096)]


@lru_cache(maxsize=256)
def plan_network(
    problem: Problem, scale: DartsScale, stem: StemKind, outputs: tuple[int, int]
) -> NetworkPlan:
    """Plan a stack of cells with reductions at a third and at two thirds.

    outputs: nodes that a normal and a reduction cell put out, which are concatenated.
    Source: the released code of DARTS. Raises UserError for images too small.
    """
    reductions = scale.cells // 3, 2 * scale.cells // 3
    return stack_cells(problem, stem, scale.channels, scale.cells, reductions, outputs)


class GenotypeSpace(AdditiveSpace):
    """A space of a normal and a reduction cell, in the networks of DARTS.

    nodes: of each cell, at most. operations_by_name: what an edge of a genotype can be.
    """

    nodes: int
    stem: StemKind
    scales: dict[Scale, DartsScale]
    operations_by_name: Mapping[str, Operation]

    @abstractmethod
    def genotype(self, architecture: Architecture) -> Genotype:
        """Return both cells of an architecture."""

    @abstractmethod
    def of_genotype(self, genotype: Genotype) -> Architecture:
        """Return the architecture of a genotype; raises UserError if it is none of this space."""

    @property
    def states(self) -> list[str]:
        """Names of the states of a cell: its inputs, and its nodes."""
        return ["cell k-2", "cell k-1", *(f"node {node}" for node in range(self.nodes))]

    def every(self) -> Iterator[Architecture]:
        for parts in product(*(list(self.ways(group)) for group in self.groups)):
            yield Architecture(self.name, tuple(choice for part in parts for choice in part))

    def plan(self, problem: Problem, scale: Scale, outputs: tuple[int, int]) -> NetworkPlan:
        """Plan the stack; outputs: nodes that a normal and a reduction cell put out."""
        return plan_network(problem, self.scales[scale], self.stem, outputs)

    def plan_of(self, genotype: Genotype, problem: Problem, scale: Scale) -> NetworkPlan:
        """Plan the stack of a genotype's cells."""
        outputs = len(genotype.normal.concat), len(genotype.reduce.concat)
        return self.plan(problem, scale, outputs)

    def layers(
        self, architecture: Architecture, problem: Problem, scale: Scale = "search"
    ) -> list[Layer]:
        """List stem, calibrations of cell inputs, operations, and head.

        Names contain the operation, its channels, the input's side and, of operations on edges, the
        stride: ``darts_cell/sep_conv_3x3 36 32 s1``. Sums and concatenations belong to no layer.
        """
        genotype, space = self.genotype(architecture), self.name.partition("/")[0]
        plan = self.plan_of(genotype, problem, scale)
        layers = [stem_layer(space, plan)]
        for cell in plan.cells:
            layers += [calibration_layer(space, source, cell) for source in cell.inputs]
            for entry in genotype.cells[cell.reduction].entries:
                outer = entry.state < INPUTS
                size = cell.size_in if outer else cell.size_out
                stride = 2 if cell.reduction and outer else 1
                operation = self.operations_by_name[entry.operation]
                layers.append(
                    operation_layer(space, entry.operation, operation, cell.channels, size, stride)
                )
        return [*layers, head_layer(space, plan)]

    def operations_of(self, architecture: Architecture) -> list[str]:
        """List the operations that are there."""
        cells = self.genotype(architecture).cells
        return [entry.operation for cell in cells for entry in cell.entries]

    def describe(self, architecture: Architecture) -> list[str]:
        lines, states = [], self.states
        for title, cell in zip(TITLES, self.genotype(architecture).cells, strict=True):
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
        for title, cell in zip(TITLES, self.genotype(architecture).cells, strict=True):
            edges = [
                (entry.state, index + INPUTS, words(entry.operation))
                for index, node in enumerate(cell.nodes)
                for entry in node
                if entry.operation != NONE
            ]
            read = {target for _, target, _ in edges}
            labels = [
                label if at < INPUTS or at in read else f"{label}\nzeros"
                for at, label in enumerate(self.states[: len(cell.nodes) + INPUTS])
            ]
            edges += [(state, len(labels), "") for state in cell.concat]
            found[title] = Graph((*labels, "output"), edges)
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
