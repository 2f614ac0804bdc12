"""The search space of DARTS and its heirs: an operation, or none, on each of 28 edges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import combinations, product
from math import prod
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from nasrun.errors import UserError
from nasrun.search_space.additive import AdditiveSpace
from nasrun.search_space.base import Scale
from nasrun.search_space.darts_cell.network import DartsNetwork, DartsSupernet
from nasrun.search_space.darts_cell.operations import (
    EVERY_NAME,
    NONE,
    NONE_IN_MIXTURES,
    SKIP,
    OperationSet,
    options_of_edges,
)
from nasrun.search_space.darts_cell.plan import list_layers, plan_network
from nasrun.search_space.darts_cell.wiring import (
    choices_of_genotype,
    edges_before,
    edges_of,
    write_genotype,
)
from nasrun.search_space.gates import GateKind
from nasrun.search_space.genotype import CELLS, INPUTS, Genotype, genotype_of, read_genotype
from nasrun.search_space.graph import Graph, words
from nasrun.search_space.layer import Layer
from nasrun.search_space.stacked_cells import NetworkPlan, StemKind
from nasrun.values import Architecture, Cost, Decision, Problem

OPEN_EDGES = 2
"""The number of edges that end in each node of an architecture."""


class DartsScale(BaseModel):
    """The scale of a network. cells: of all stages; channels: C of the first stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cells: Annotated[int, Field(ge=3, le=100)]
    channels: Annotated[int, Field(ge=2, le=4096)]


class DartsCell(AdditiveSpace):
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
    open_edges = OPEN_EDGES
    closed_option = NONE

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
        if search.channels % partial_channels:
            raise UserError(
                f"search_space.partial_channels={partial_channels} does not divide "
                f"search_space.search.channels={search.channels}"
            )
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
        inputs = self._states()
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

    def _states(self) -> list[str]:
        return ["cell k-2", "cell k-1", *(f"node {node}" for node in range(self.nodes))]

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
        """The numbers of open edges that a node may have."""
        return range(OPEN_EDGES + 1) if self.fewer_edges else (OPEN_EDGES,)

    def every(self) -> Iterator[Architecture]:
        for nodes in product(*(list(self._ways(group)) for group in self.groups)):
            yield Architecture(self.name, tuple(choice for node in nodes for choice in node))

    def _ways(self, group: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """Yield all choices for the edges ``group`` of a node."""
        places = range(len(group))
        for chosen in (some for count in self.edge_counts for some in combinations(places, count)):
            options = (range(1, len(self.options[group[edge]])) for edge in chosen)
            for opened in product(*options):
                choices = [NONE] * len(group)
                for edge, option in zip(chosen, opened, strict=True):
                    choices[edge] = option
                yield tuple(choices)

    def variants(self, start: Architecture, group: tuple[int, ...]) -> Iterator[Architecture]:
        """Yield ``start`` with all choices of a node; ``group`` is one of ``groups``."""
        before, after = start.choices[: group[0]], start.choices[group[-1] + 1 :]
        for choices in self._ways(group):
            yield Architecture(self.name, (*before, *choices, *after))

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
        that weighs nothing stays closed.
        """
        choices = [NONE] * len(self.decisions)
        heaviest = [
            max(range(NONE + 1, len(names)), key=row.__getitem__)
            for names, row in zip(self.options, weights, strict=True)
        ]
        for group in self.groups:
            by_weight = sorted(group, key=lambda edge: -weights[edge][heaviest[edge]])
            for edge in by_weight[:OPEN_EDGES]:
                if not self.fewer_edges or weights[edge][heaviest[edge]] > 0:
                    choices[edge] = heaviest[edge]
        return Architecture(self.name, tuple(choices))

    def operations_of(self, architecture: Architecture) -> list[str]:
        """List the operations on open edges."""
        numbers = self._numbers_of(architecture.choices)
        return [EVERY_NAME[number] for number in numbers if number != NONE]

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

    def _plan(self, problem: Problem, scale: Scale) -> NetworkPlan:
        size = self.scales[scale]
        return plan_network(
            problem, cells=size.cells, channels=size.channels, stem=self.stem, nodes=self.nodes
        )

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
            self._plan(problem, "search"),
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
        plan = self._plan(problem, scale)
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

    def layers(
        self, architecture: Architecture, problem: Problem, scale: Scale = "search"
    ) -> list[Layer]:
        """List stem, calibrations of cell inputs, operations on open edges, and head.

        Names contain the operation, its channels, the input's side and, of operations on edges, the
        stride: ``darts_cell/sep_conv_3x3 36 32 s1``. Sums and concatenations belong to no layer.
        """
        numbers = self._numbers_of(architecture.choices)
        return list_layers(self._plan(problem, scale), numbers, self.nodes)

    def describe(self, architecture: Architecture) -> list[str]:
        lines = []
        numbers = self._numbers_of(architecture.choices)
        states, half = self._states(), len(numbers) // 2
        for title, choices in (
            ("normal cell", numbers[:half]),
            ("reduction cell", numbers[half:]),
        ):
            lines.append(title)
            for node in range(self.nodes):
                terms = [
                    f"{EVERY_NAME[choice]}({states[state]})"
                    for (target, state), choice in zip(edges_of(self.nodes), choices, strict=True)
                    if target == node and choice != NONE
                ]
                lines.append(f"  node {node} = {' + '.join(terms) or 'zeros'}")
            lines.append(f"  output = concat({', '.join(states[INPUTS:])})")
        return lines

    def graphs(
        self, architecture: Architecture, problem: Problem, scale: Scale = "final"
    ) -> dict[str, Graph]:
        """Both cells, each operation on its edge."""
        numbers = self._numbers_of(architecture.choices)
        states, half = self._states(), len(numbers) // 2
        nodes = (*states, "output")
        found = {}
        for cell, choices in (
            ("normal cell", numbers[:half]),
            ("reduction cell", numbers[half:]),
        ):
            edges = [
                (state, node + INPUTS, words(EVERY_NAME[choice]))
                for (node, state), choice in zip(edges_of(self.nodes), choices, strict=True)
                if choice != NONE
            ]
            edges += [(node + INPUTS, len(states), "") for node in range(self.nodes)]
            found[cell] = Graph(nodes, edges)
        return found

    def write(self, architecture: Architecture) -> str:
        return write_genotype(self._numbers_of(architecture.choices), self.nodes)

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
