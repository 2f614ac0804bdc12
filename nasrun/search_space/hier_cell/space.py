"""The search space of hierarchical evolution: motifs of operations, and a cell of motifs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from nasrun.limits import Width
from nasrun.search_space.base import Scale, SearchSpace
from nasrun.search_space.capabilities import Places
from nasrun.search_space.gates import GateKind
from nasrun.search_space.graph import Graph, words
from nasrun.search_space.hier_cell.motifs import ABSENT, edge_index, edges_of, live_edges
from nasrun.search_space.hier_cell.network import (
    LEARNED,
    PRIMITIVES,
    Genotype,
    HierStandalone,
    HierSupernet,
    Primitive,
    Transition,
    parameter_free,
    stem,
)
from nasrun.search_space.layer import Layer, count_layers, sum_costs
from nasrun.search_space.stages import StagePlan, plan_stages, pooled_classifier
from nasrun.values import Architecture, Cost, Decision, MapSize, Problem

STAGES = 3
"""Stages of a network; the sides are halved between them."""

IDENTITY = 1 + PRIMITIVES.index("identity")
"""The option of an edge of a motif that is an identity."""


class HierScale(BaseModel):
    """The scale of a network. cells: of each stage; channels: C of the first stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cells: Annotated[int, Field(gt=0, le=100)]
    channels: Width


class HierCell(SearchSpace):
    """``hier_cell``: hierarchical representations (Liu et al., ICLR 2018, arXiv 1711.00436).

    Level 1 are six primitives, level 2 ``motifs`` graphs with a primitive, or none, on each edge,
    and level 3 one graph with a motif, or none, on each edge: the cell. A node concatenates what
    comes in, so that widths grow; convolutions bring them back to C.

    The decisions are the edges of all motifs, then those of the cell. It has ``PlacesInLevels``.

    motifs: of level 2. motif_nodes, cell_nodes: nodes of each, and of the cell.
    """

    gate_kinds: frozenset[GateKind] = frozenset({"path"})

    def __init__(
        self,
        *,
        motifs: Annotated[int, Field(gt=0, le=100)],
        motif_nodes: Annotated[int, Field(ge=2, le=8)],
        cell_nodes: Annotated[int, Field(ge=2, le=8)],
        search: HierScale,
        final: HierScale,
    ) -> None:
        self.name = f"hier_cell/{motifs}/{motif_nodes}/{cell_nodes}"
        self.motifs, self.motif_nodes, self.cell_nodes = motifs, motif_nodes, cell_nodes
        self.scales: dict[Scale, HierScale] = {"search": search, "final": final}

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        inner = ("none", *PRIMITIVES)
        outer = ("none", *(f"motif {index}" for index in range(self.motifs)))
        return (
            *(
                Decision(f"motif{index}/{source}-{target}/op", inner)
                for index in range(self.motifs)
                for source, target in edges_of(self.motif_nodes)
            ),
            *(
                Decision(f"cell/{source}-{target}/motif", outer)
                for source, target in edges_of(self.cell_nodes)
            ),
        )

    @property
    def places(self) -> Places:
        """Levels, motifs, nodes, edges (section 3.1)."""

        def nodes_from(first: int, nodes: int) -> list[list[int]]:
            return [
                [first + edge_index(source, target) for source in range(target)]
                for target in range(1, nodes)
            ]

        edges = len(edges_of(self.motif_nodes))
        inner = [nodes_from(edges * index, self.motif_nodes) for index in range(self.motifs)]
        return [inner, [nodes_from(edges * self.motifs, self.cell_nodes)]]

    @property
    def trivial(self) -> Architecture:
        """A chain of identities in each motif, and a chain of the first motif (section 3.1)."""

        def chain(nodes: int, option: int) -> list[int]:
            return [
                option if target == source + 1 else ABSENT for source, target in edges_of(nodes)
            ]

        inner = chain(self.motif_nodes, IDENTITY) * self.motifs
        return Architecture(self.name, (*inner, *chain(self.cell_nodes, 1)))

    def genotype(self, choices: Sequence[int]) -> Genotype:
        """Return the options of motifs and cell."""
        edges = len(edges_of(self.motif_nodes))
        motifs = tuple(
            tuple(choices[edges * index : edges * (index + 1)]) for index in range(self.motifs)
        )
        cell = tuple(choices[edges * self.motifs :])
        return Genotype(motifs, cell, self.motif_nodes, self.cell_nodes)

    def _plan(self, problem: Problem, scale: Scale) -> StagePlan:
        size = self.scales[scale]
        return plan_stages(problem, self.name, size.channels, [size.cells] * STAGES)

    @property
    def _widest(self) -> Genotype:
        """The genotype in which every value is as wide as it can be."""
        motif = (IDENTITY,) * len(edges_of(self.motif_nodes))
        cell = (1,) * len(edges_of(self.cell_nodes))
        return Genotype((motif,) * self.motifs, cell, self.motif_nodes, self.cell_nodes)

    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> HierSupernet:
        self.refuse_auxiliary(auxiliary)
        return HierSupernet(self._plan(problem, "search"), self._widest, self.genotype)

    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> HierStandalone:
        self.refuse_auxiliary(auxiliary)
        genotype = self.genotype(self.check(architecture).choices)
        return HierStandalone(self._plan(problem, scale), genotype)

    def layers(
        self, architecture: Architecture, problem: Problem, scale: Scale = "search"
    ) -> list[Layer]:
        """List stem, primitives with weights or windows, transitions and head.

        Names contain the primitive, the widths of input and output, and the input's side:
        ``hier_cell/sep_conv_3x3 48-16 32``. Identities and concatenations belong to no layer.
        """
        plan, genotype = self._plan(problem, scale), self.genotype(architecture.choices)
        layers, width = [_stem_layer(plan)], 0
        blocks = list(plan.blocks())
        for index, (stage, begins) in enumerate(blocks):
            if index:
                before = blocks[index - 1][0]
                layers.append(_transition(width, stage.channels, before.size, 1 + begins))
            found = genotype.primitives(stage.channels, stage.channels)
            layers += [
                _primitive(name, inputs, stage.channels, stage.size)
                for *_, name, inputs in found
                if name != "identity"
            ]
            width = (
                genotype.width(stage.channels, stage.channels, lambda *_: None) or stage.channels
            )
        return [*layers, _head_layer(plan, width)]

    def cost_bound(self, problem: Problem, scale: Scale = "search") -> Cost:
        """Sum at each edge the most expensive primitive on the widest input that there can be."""
        plan, widest = self._plan(problem, scale), self._widest
        blocks = list(plan.blocks())
        costs = [count_layers([_stem_layer(plan)])]
        for index, (stage, _) in enumerate(blocks):
            channels = stage.channels
            for *_, inputs in widest.primitives(channels, channels):
                options = [
                    count_layers([_primitive(name, inputs, channels, stage.size)])
                    for name in LEARNED
                ]
                params = max(option.params for option in options)
                costs.append(Cost(params, max(option.macs for option in options)))
            width = widest.width(channels, channels, lambda *_: None)
            if index + 1 < len(blocks):
                following, begins = blocks[index + 1]
                layer = _transition(width, following.channels, stage.size, 1 + begins)
            else:
                layer = _head_layer(plan, width)
            costs.append(count_layers([layer]))
        return sum_costs(costs)

    def canonical(self, architecture: Architecture) -> Architecture:
        """Take away the edges that lead nowhere, and the motifs that the cell does not use."""
        genotype = self.genotype(architecture.choices)
        live = live_edges(genotype.cell, self.cell_nodes, genotype.passes)
        cell = [option if edge in live else ABSENT for edge, option in enumerate(genotype.cell)]
        choices: list[int] = []
        for index, motif in enumerate(genotype.motifs):
            used = live_edges(motif, self.motif_nodes) if index + 1 in cell else []
            choices += [option if edge in used else ABSENT for edge, option in enumerate(motif)]
        return Architecture(self.name, (*choices, *cell))

    def equivalent(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """Exchange two random motifs everywhere."""
        genotype = self.genotype(architecture.choices)
        one, two = rng.integers(self.motifs, size=2).tolist()
        motifs = list(genotype.motifs)
        motifs[one], motifs[two] = motifs[two], motifs[one]
        other = {one + 1: two + 1, two + 1: one + 1}
        cell = [other.get(option, option) for option in genotype.cell]
        return Architecture(self.name, (*(gene for motif in motifs for gene in motif), *cell))

    def operations_of(self, architecture: Architecture) -> list[str]:
        """List the primitives that a cell computes."""
        genotype = self.genotype(architecture.choices)
        return [name for *_, name, _ in genotype.primitives(1, 1)]

    def describe(self, architecture: Architecture) -> list[str]:
        return [
            f"{name}: " + (", ".join(f"{s}→{t} {label}" for s, t, label in edges) or "nothing")
            for name, edges in self._edges(architecture).items()
        ]

    def graphs(
        self, architecture: Architecture, problem: Problem, scale: Scale = "final"
    ) -> dict[str, Graph]:
        """The cell and the motifs that it uses, each edge with its operation."""
        if not any(self.canonical(architecture).choices):
            return {"cell": Graph(("input", "output"), [(0, 1, "zeros")])}
        counts = dict.fromkeys(self._edges(architecture), self.motif_nodes)
        counts["cell"] = self.cell_nodes
        return {
            name: Graph(
                ["input", *(f"node {node}" for node in range(1, counts[name] - 1)), "output"], edges
            )
            for name, edges in self._edges(architecture).items()
        }

    def _edges(self, architecture: Architecture) -> dict[str, list[tuple[int, int, str]]]:
        """Return the live edges, with their operations, of the cell and of the motifs it uses."""
        genotype = self.genotype(self.canonical(architecture).choices)

        def labelled(
            options: Sequence[int], nodes: int, names: Sequence[str]
        ) -> list[tuple[int, int, str]]:
            pairs = zip(edges_of(nodes), options, strict=True)
            return [(s, t, names[option - 1]) for (s, t), option in pairs if option != ABSENT]

        primitives = [words(name) for name in PRIMITIVES]
        motifs = [f"motif {index}" for index in range(self.motifs)]
        found = {"cell": labelled(genotype.cell, self.cell_nodes, motifs)}
        for name, motif in zip(motifs, genotype.motifs, strict=True):
            if any(motif):
                found[name] = labelled(motif, self.motif_nodes, primitives)
        return found


def _stem_layer(plan: StagePlan) -> Layer:
    problem, channels = plan.problem, plan.stages[0].channels
    return Layer(
        f"hier_cell/stem {problem.channels}-{channels} {problem.size}",
        problem.shape,
        partial(stem, plan),
    )


def _primitive(name: str, inputs: int, channels: int, size: MapSize) -> Layer:
    return Layer(
        f"hier_cell/{name} {inputs}-{channels} {size}",
        size.shape(inputs),
        partial(_build, name, inputs, channels),
    )


def _build(name: str, inputs: int, channels: int) -> nn.Module:
    return Primitive(name, inputs, channels) if name in LEARNED else parameter_free(name)


def _transition(width: int, outputs: int, size: MapSize, stride: int) -> Layer:
    return Layer(
        f"hier_cell/transition {width}-{outputs} {size} s{stride}",
        size.shape(width),
        partial(Transition, width, outputs, stride),
    )


def _head_layer(plan: StagePlan, width: int) -> Layer:
    size, classes = plan.stages[-1].size, plan.problem.classes
    return Layer(
        f"hier_cell/head {width}-{classes} {size}",
        size.shape(width),
        partial(pooled_classifier, width, classes),
    )
