"""The search space of DARTS and its heirs: an operation, or none, on each of 28 edges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import combinations, product
from math import prod
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from nasrun.errors import UserError
from nasrun.search_space.base import Scale
from nasrun.search_space.darts_cell.network import DartsNetwork, DartsSupernet
from nasrun.search_space.darts_cell.operations import (
    EDGE_OPERATIONS,
    EVERY_NAME,
    NONE,
    NONE_IN_MIXTURES,
    SKIP,
    OperationSet,
    options_of_edges,
)
from nasrun.search_space.darts_cell.wiring import (
    choices_of_genotype,
    edges_before,
    edges_of,
    genotype_of_choices,
)
from nasrun.search_space.gates import GateKind
from nasrun.search_space.genotype import CELLS, Genotype
from nasrun.search_space.genotype_space import DartsScale, GenotypeSpace
from nasrun.search_space.partial_channels import check_divides
from nasrun.search_space.stacked_cells import StemKind
from nasrun.values import Architecture, Cost, Decision, Problem

OPEN_EDGES = 2
"""The number of edges that end in each node of an architecture."""


class DartsCell(GenotypeSpace):
    """``darts_cell``: the space of DARTS (Liu et al., ICLR 2019, arXiv 1806.09055).

    A decision is the operation on an edge, or ``none``. Supernet and networks accept any choices;
    an architecture of the space, a genotype, has exactly two open edges at each node.
    It is written ``Genotype(normal=[('sep_conv_3x3', 0), ...], ...)``.

    nodes: nodes of a cell. affine: whether the batch norms of the supernet's cells scale and shift;
    in stand-alone networks they do. stem: ``small`` for images of CIFAR's size, or ``imagenet``.
    partial_channels: K of PC-DARTS; in the supernet 1/K of the channels go through the operations
    of an edge, 1: all. operations: of the edges; those of RobustDARTS' S1 to S4 are fewer.
    fewer_edges: whether nodes may also have one open edge, or none, and then are zeros.
    With C = 36 and 20 cells ``Cost.params`` are the published numbers.
    """

    gate_kinds: frozenset[GateKind] = frozenset({"path", "mix"})
    closed_option = NONE
    operations_by_name = EDGE_OPERATIONS

    def __init__(
        self,
        *,
        nodes: Annotated[int, Field(gt=0, le=8)],
        stem: StemKind,
        affine: bool,
        partial_channels: Annotated[int, Field(gt=0, le=64)],
        search: DartsScale,
        final: DartsScale,
        operations: OperationSet = "all",
        fewer_edges: bool = False,
    ) -> None:
        check_divides(partial_channels, search.channels)
        self.name = f"darts_cell/{nodes}" + (f"/{operations}" if operations != "all" else "")
        self.name += "/fewer" * fewer_edges
        self.fewer_edges = fewer_edges
        self.nodes = nodes
        self.operations: OperationSet = operations
        self.options = options_of_edges(operations, len(edges_of(nodes)))
        self.stem: StemKind = stem
        self.affine = affine
        self.partial_channels = partial_channels
        self.scales: dict[Scale, DartsScale] = {"search": search, "final": final}

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        inputs = self.states
        names = [
            f"{cell}/node{node}/{inputs[state]}/op"
            for cell in CELLS
            for node, state in edges_of(self.nodes)
        ]
        return tuple(map(Decision, names, self.options))

    @cached_property
    def numbers(self) -> tuple[tuple[int, ...], ...]:
        """The number of each option of each edge among all operations."""
        return tuple(tuple(map(EVERY_NAME.index, names)) for names in self.options)

    def _numbers_of(self, choices: Sequence[int]) -> tuple[int, ...]:
        """Return the numbers of the chosen operations among all."""
        return tuple(row[choice] for row, choice in zip(self.numbers, choices, strict=True))

    @property
    def mixed_options(self) -> list[range]:
        """The options that mixtures open: all, but for ``none`` in S1, S2 and S4."""
        first = NONE if self.operations in NONE_IN_MIXTURES else NONE + 1
        return [range(first, len(names)) for names in self.options]

    @cached_property
    def additive(self) -> tuple[tuple[int, ...], ...]:
        """Groups of the edges of each node, of which two are open."""
        half = len(self.decisions) // 2
        return tuple(
            tuple(range(start + edges_before(node), start + edges_before(node + 1)))
            for start in (0, half)
            for node in range(self.nodes)
        )

    @property
    def edges_by_node(self) -> tuple[tuple[int, ...], ...]:
        return self.additive

    @property
    def cost_groups(self) -> tuple[tuple[int, ...], ...]:
        """Groups of a single edge: the costs of the edges of a node add up, too."""
        return self.singles

    @property
    def size(self) -> int:
        def ways(group: tuple[int, ...]) -> int:
            counts = [len(self.options[edge]) - 1 for edge in group]
            return sum(prod(some) for n in self.edge_counts for some in combinations(counts, n))

        return prod(ways(group) for group in self.groups)

    @property
    def edge_counts(self) -> Sequence[int]:
        """The numbers of open edges that a node may have, smallest first."""
        return range(OPEN_EDGES + 1) if self.fewer_edges else (OPEN_EDGES,)

    def ways(self, group: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """Yield all choices for the edges of a node."""
        places = range(len(group))
        for chosen in (some for count in self.edge_counts for some in combinations(places, count)):
            options = (range(1, len(self.options[group[edge]])) for edge in chosen)
            for opened in product(*options):
                choices = [NONE] * len(group)
                for edge, option in zip(chosen, opened, strict=True):
                    choices[edge] = option
                yield tuple(choices)

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Sample two inputs of every node and an operation on each, uniformly.

        With ``fewer_edges`` first their number, uniformly.
        """
        choices = [NONE] * len(self.decisions)
        for group in self.groups:
            count = int(rng.integers(OPEN_EDGES + 1)) if self.fewer_edges else OPEN_EDGES
            self._open(choices, group, count, rng)
        return Architecture(self.name, tuple(choices))

    def _open(
        self, choices: list[int], group: Sequence[int], count: int, rng: np.random.Generator
    ) -> None:
        """Open ``count`` random edges that are closed, each with a random operation."""
        closed = [edge for edge in group if choices[edge] == NONE]
        for edge in rng.permutation(closed)[:count].tolist():
            choices[edge] = int(rng.integers(1, len(self.options[edge])))

    def repair(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """Close random edges of nodes with too many open edges; open some where there are too few.

        Opened edges get random operations.
        """
        choices = list(architecture.choices)
        for group in self.groups:
            opened = [edge for edge in group if choices[edge] != NONE]
            if len(opened) > OPEN_EDGES:
                for edge in rng.permutation(opened)[OPEN_EDGES:].tolist():
                    choices[edge] = NONE
            elif len(opened) not in self.edge_counts:
                self._open(choices, group, OPEN_EDGES - len(opened), rng)
        return Architecture(self.name, tuple(choices))

    def strongest(self, weights: Sequence[Sequence[float]]) -> Architecture:
        """Take the two heaviest edges of every node and their heaviest operations (DARTS, §2.4).

        An edge weighs as much as its heaviest operation, ``none`` aside; with ``fewer_edges`` one
        whose ``none`` weighs as much stays closed (SNAS).
        """
        choices = [NONE] * len(self.decisions)
        heaviest = [
            max(range(NONE + 1, len(names)), key=row.__getitem__)
            for names, row in zip(self.options, weights, strict=True)
        ]
        for group in self.groups:
            by_weight = sorted(group, key=lambda edge: -weights[edge][heaviest[edge]])
            for edge in by_weight[:OPEN_EDGES]:
                if not self.fewer_edges or weights[edge][heaviest[edge]] > weights[edge][NONE]:
                    choices[edge] = heaviest[edge]
        return Architecture(self.name, tuple(choices))

    def check(self, architecture: Architecture) -> Architecture:
        """Check as all spaces do; raises UserError also over a wrong number of open edges."""
        super().check(architecture)
        for place, group in enumerate(self.groups):
            found = sum(architecture.choices[edge] != NONE for edge in group)
            if found not in self.edge_counts:
                cell, node = divmod(place, self.nodes)
                most = "at most " * self.fewer_edges
                raise UserError(
                    f"node {node} of the {CELLS[cell]} cell has {found} open edges; an "
                    f"architecture of {self.name} has {most}{OPEN_EDGES} at each node"
                )
        return architecture

    def of_cells(self, cells: int, *, partial_channels: int | None = None) -> DartsCell:
        """Return the same space with supernets of ``cells`` cells, and maybe another K."""
        return DartsCell(
            nodes=self.nodes,
            stem=self.stem,
            affine=self.affine,
            partial_channels=partial_channels or self.partial_channels,
            search=DartsScale(cells=cells, channels=self.scales["search"].channels),
            final=self.scales["final"],
            operations=self.operations,
            fewer_edges=self.fewer_edges,
        )

    @property
    def normal_skips(self) -> dict[int, int]:
        """Decisions of the normal cell -> their option that is a skip connection."""
        normal = enumerate(self.numbers[: len(self.numbers) // 2])
        return {edge: row.index(SKIP) for edge, row in normal if SKIP in row}

    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> DartsSupernet:
        return DartsSupernet(
            self.plan(problem, "search", (self.nodes, self.nodes)),
            self.nodes,
            auxiliary=auxiliary,
            affine=self.affine,
            partial_channels=self.partial_channels,
            numbers=self.numbers,
        )

    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> DartsNetwork:
        """Build the network of any edges, also of choices that are no genotype."""
        choices = super().check(architecture).choices
        plan = self.plan(problem, scale, (self.nodes, self.nodes))
        return DartsNetwork(plan, self._numbers_of(choices), self.nodes, auxiliary=auxiliary)

    def cost_bound(self, problem: Problem, scale: Scale = "search") -> Cost:
        """Add up the two most expensive edges of every node, by parameters and by multiply-adds."""
        terms = self.terms(problem, scale)
        fixed = terms.cost((NONE,) * len(self.decisions))

        def bound(size: Literal["params", "macs"]) -> int:
            total: int = getattr(fixed, size)
            for group in self.groups:
                costs = (
                    [
                        getattr(terms.difference(edge, (option,)), size)
                        for option in range(len(self.options[edge]))
                    ]
                    for edge in group
                )
                total += sum(sorted(max(edge) - edge[NONE] for edge in costs)[-OPEN_EDGES:])
            return total

        return Cost(bound("params"), bound("macs"))

    def genotype(self, architecture: Architecture) -> Genotype:
        return genotype_of_choices(self._numbers_of(architecture.choices), self.nodes)

    def of_genotype(self, genotype: Genotype) -> Architecture:
        choices = []
        found = choices_of_genotype(genotype, self.nodes, fewer=self.fewer_edges)
        for decision, row, number in zip(self.decisions, self.numbers, found, strict=True):
            if number not in row:
                raise UserError(
                    f"{decision.name}: {self.name} has no {EVERY_NAME[number]} on this edge; it "
                    f"has {', '.join(decision.options[1:])}"
                )
            choices.append(row.index(number))
        return self.check(Architecture(self.name, tuple(choices)))
