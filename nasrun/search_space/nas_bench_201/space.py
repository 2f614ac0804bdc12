"""NAS-Bench-201 as a search space: six decisions of five operations, 15,625 cells."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from nasrun.errors import UserError
from nasrun.search_space.additive import AdditiveSpace
from nasrun.search_space.base import Scale
from nasrun.search_space.gates import GateKind
from nasrun.search_space.graph import Graph, words
from nasrun.search_space.layer import Layer
from nasrun.search_space.nas_bench_201.cell import (
    CONV_3X3,
    EDGES,
    NODE_COUNT,
    NONE,
    OPERATION_NAMES,
    Meaning,
    meaning,
    read_string,
    write_string,
)
from nasrun.search_space.nas_bench_201.network import Nb201Network, Nb201Supernet, list_layers
from nasrun.search_space.partial_channels import check_divides
from nasrun.search_space.stages import StagePlan, plan_stages
from nasrun.values import Architecture, Decision, Problem

STAGE_COUNT = 3


class Nb201Scale(BaseModel):
    """The scale of a network. channels: C of the first stage; cells: N, cells of a stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: Annotated[int, Field(gt=0, le=1024)]
    cells: Annotated[int, Field(gt=0, le=100)]


class NasBench201(AdditiveSpace):
    """``nas_bench_201``: the space of NAS-Bench-201 (Dong & Yang, ICLR 2020, arXiv 2001.00326).

    An architecture is written as six digits, for the edges 1←0, 2←0, 2←1, 3←0, 3←1, 3←2: 0
    none, 1 skip, 2 convolution 1×1, 3 convolution 3×3, 4 average pooling.

    affine: whether the batch norms of the supernet's operations scale and shift; those of
    stand-alone networks, and outside the cells, always do. With 16 channels and 5 cells,
    on 3×32×32 images of 10 classes, ``Cost.params`` is the published number; the published
    multiply-adds are ``Cost.macs`` and the classifier's 10 biases. Both count convolutions on
    edges that lead nowhere.
    """

    name = "nas_bench_201"
    gate_kinds: frozenset[GateKind] = frozenset({"path", "mix"})

    def __init__(
        self,
        *,
        affine: bool,
        partial_channels: Annotated[int, Field(gt=0, le=64)],
        search: Nb201Scale,
        final: Nb201Scale,
    ) -> None:
        check_divides(partial_channels, search.channels)
        self.affine, self.partial_channels = affine, partial_channels
        self.scales: dict[Scale, Nb201Scale] = {"search": search, "final": final}

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        return tuple(
            Decision(f"node{node}/from{source}/op", OPERATION_NAMES) for node, source in EDGES
        )

    @property
    def edges_by_node(self) -> tuple[tuple[int, ...], ...]:
        return tuple(
            tuple(edge for edge, (target, _) in enumerate(EDGES) if target == node)
            for node in range(1, NODE_COUNT)
        )

    def _plan(self, problem: Problem, scale: Scale) -> StagePlan:
        size = self.scales[scale]
        return plan_stages(problem, self.name, size.channels, [size.cells] * STAGE_COUNT)

    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> Nb201Supernet:
        self.refuse_auxiliary(auxiliary)
        return Nb201Supernet(
            self._plan(problem, "search"),
            affine=self.affine,
            partial_channels=self.partial_channels,
        )

    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> Nb201Network:
        self.refuse_auxiliary(auxiliary)
        return Nb201Network(self._plan(problem, scale), self.check(architecture).choices)

    def layers(
        self, architecture: Architecture, problem: Problem, scale: Scale = "search"
    ) -> list[Layer]:
        """List stem, the operation of each edge of each cell but ``none``, reductions and head.

        Names contain the operation, its channels and the input's side:
        ``nas_bench_201/nor_conv_3x3 16 32``. Sums of nodes belong to no layer.
        """
        return list_layers(self._plan(problem, scale), architecture.choices)

    @cached_property
    def _alike(self) -> dict[Meaning, list[Architecture]]:
        """Architectures by the meaning of their cells; made once, in half a second."""
        found: dict[Meaning, list[Architecture]] = {}
        for architecture in self.every():
            found.setdefault(meaning(architecture.choices), []).append(architecture)
        return found

    def canonical(self, architecture: Architecture) -> Architecture:
        """Return the first architecture, in the order of ``every``, with the same function.

        Edges that lead nowhere do not matter for the function, but count in ``cost``. The 6,466
        published classes differ: they separate some equal functions, and count a convolution that
        is used twice as two convolutions.
        """
        return self._alike[meaning(architecture.choices)][0]

    def equivalent(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """Sample uniformly from the architectures whose cell has the same function."""
        alike = self._alike[meaning(architecture.choices)]
        return alike[rng.integers(len(alike))]

    def describe(self, architecture: Architecture) -> list[str]:
        lines = [write_string(architecture.choices)]
        edges = list(zip(EDGES, architecture.choices, strict=True))
        for node in range(1, NODE_COUNT):
            terms = [
                f"{OPERATION_NAMES[choice]}({f'node {source}' if source else 'input'})"
                for (target, source), choice in edges
                if target == node and choice != NONE
            ]
            name = f"node {node}" if node < NODE_COUNT - 1 else "output"
            lines.append(f"  {name} = {' + '.join(terms) or 'zeros'}")
        return lines

    def graphs(
        self, architecture: Architecture, problem: Problem, scale: Scale = "final"
    ) -> dict[str, Graph]:
        """The cell, each operation on its edge; a node that reads nothing is zeros."""
        edges = [
            (source, target, words(OPERATION_NAMES[choice]))
            for (target, source), choice in zip(EDGES, architecture.choices, strict=True)
            if choice != NONE
        ]
        read = {target for _, target, _ in edges}
        names = (*(f"node {node}" for node in range(1, NODE_COUNT - 1)), "output")
        nodes = [name if at in read else f"{name}\nzeros" for at, name in enumerate(names, 1)]
        return {"cell": Graph(("input", *nodes), edges)}

    def write(self, architecture: Architecture) -> str:
        return "".join(map(str, architecture.choices))

    def parse(self, text: str) -> Architecture:
        """Read six digits, or ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|``.

        The string may stand in quotes, in ``Structure(4 nodes with ...)`` or as tuples.
        Raises UserError for anything else.
        """
        if not {"~", "'", '"'} & set(text):
            return super().parse(" ".join(text.strip()))
        choices = read_string(text.strip())
        if choices is None:
            example = write_string((CONV_3X3,) * len(EDGES))
            raise UserError(
                f"{text.strip()[:200]!r} is no cell of {self.name}; one is written {example} with "
                f"{', '.join(OPERATION_NAMES)}"
            )
        return Architecture(self.name, tuple(choices))
