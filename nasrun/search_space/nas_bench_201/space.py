"""NAS-Bench-201 as a search space: six decisions of five operations, 15,625 cells."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from nasrun.errors import UserError
from nasrun.search_space.base import Piece, Scale, SearchSpace
from nasrun.search_space.gates import GateKind
from nasrun.search_space.nas_bench_201.cell import (
    CONV_3X3,
    EDGES,
    NAMES,
    NODES,
    NONE,
    OPTIONS,
    Meaning,
    meaning,
    read_string,
    write_string,
)
from nasrun.search_space.nas_bench_201.network import (
    Nb201Network,
    Nb201Supernet,
    Reduction,
    Stage,
    plan_stages,
)
from nasrun.search_space.nas_bench_201.pieces import list_pieces
from nasrun.search_space.operation import total
from nasrun.values import Architecture, Cost, Decision, Problem


class Nb201Scale(BaseModel):
    """channels: C of the first stage; cells: N, cells in each of the three stages."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: Annotated[int, Field(gt=0, le=1024)]
    cells: Annotated[int, Field(gt=0, le=100)]


class NasBench201(SearchSpace):
    """``nas_bench_201``: the space of NAS-Bench-201 (Dong & Yang, ICLR 2020, arXiv 2001.00326).

    Written down, an architecture is six digits, for the edges 1←0, 2←0, 2←1, 3←0, 3←1, 3←2: 0
    none, 1 skip, 2 convolution 1×1, 3 convolution 3×3, 4 average pooling.

    affine: whether the batch norms of the supernet's operations scale and shift; those of
    stand-alone networks, and of what no decision chooses, always do. With 16 channels and 5 cells,
    on 3×32×32 images of 10 classes, ``Cost.params`` is the published number; the published
    multiply-adds are ``Cost.macs`` and the classifier's 10 biases. Both count convolutions on
    edges that lead nowhere.
    """

    name = "nas_bench_201"
    gate_kinds: frozenset[GateKind] = frozenset({"path", "mix"})

    def __init__(self, *, affine: bool, search: Nb201Scale, final: Nb201Scale) -> None:
        self.affine = affine
        self.scales: dict[Scale, Nb201Scale] = {"search": search, "final": final}

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        return tuple(Decision(f"node{node}/from{source}/op", NAMES) for node, source in EDGES)

    def _stages(self, problem: Problem, scale: Scale, *, auxiliary: bool = False) -> list[Stage]:
        if auxiliary:
            raise UserError(
                f"{self.name} has no auxiliary head: set auxiliary_weight=0 for this trainer"
            )
        return plan_stages(problem, self.scales[scale].channels, self.scales[scale].cells)

    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> Nb201Supernet:
        stages = self._stages(problem, "search", auxiliary=auxiliary)
        return Nb201Supernet(stages, problem, affine=self.affine)

    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> Nb201Network:
        stages = self._stages(problem, scale, auxiliary=auxiliary)
        return Nb201Network(stages, problem, self.check(architecture).choices)

    def cost(self, architecture: Architecture, problem: Problem, scale: Scale = "search") -> Cost:
        stages, operations = self._stages(problem, scale), tuple(OPTIONS.values())
        channels = stages[0].channels
        stem = 9 * problem.channels * channels
        costs = [Cost(stem + 2 * channels, stem * problem.size**2)]
        for stage in stages:
            cell = total(
                operations[choice].cost(stage.channels, stage.size, 1)
                for choice in architecture.choices
            )
            costs.append(Cost(stage.cells * cell.params, stage.cells * cell.macs))
        costs += [Reduction.cost(stage.channels, stage.size) for stage in stages[:-1]]
        features = stages[-1].channels
        head = Cost(2 * features + (features + 1) * problem.classes, features * problem.classes)
        return total([*costs, head])

    def cost_bound(self, problem: Problem, scale: Scale = "search") -> Cost:
        """The network of 3×3 convolutions alone, which is one of the space."""
        return self.cost(Architecture(self.name, (CONV_3X3,) * len(EDGES)), problem, scale)

    @cached_property
    def _alike(self) -> dict[Meaning, list[Architecture]]:
        """The architectures of each meaning; about half a second once."""
        found: dict[Meaning, list[Architecture]] = {}
        for architecture in self.every():
            found.setdefault(meaning(architecture.choices), []).append(architecture)
        return found

    @property
    def additive(self) -> tuple[tuple[int, ...], ...]:
        return tuple((index,) for index in range(len(self.decisions)))

    def pieces(
        self, architecture: Architecture, problem: Problem, scale: Scale = "search"
    ) -> list[Piece]:
        """Stem, the operation of each edge of each cell but ``none``, reductions and head.

        Names tell the operation, its channels and the input's side:
        ``nas_bench_201/nor_conv_3x3 16 32``. The sums of the nodes are in none of them.
        """
        return list_pieces(self._stages(problem, scale), problem, architecture.choices)

    def canonical(self, architecture: Architecture) -> Architecture:
        """The first architecture, in the order of ``every``, whose cell is the same function.

        Weights on edges that lead nowhere are no part of the function, though of ``cost``. The
        6,466 published classes are others: they tell some equal functions apart, and take one
        convolution used twice for two convolutions.
        """
        return self._alike[meaning(architecture.choices)][0]

    def equivalent(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """Any architecture whose cell is the same function, all alike."""
        alike = self._alike[meaning(architecture.choices)]
        return alike[rng.integers(len(alike))]

    def describe(self, architecture: Architecture) -> list[str]:
        lines = [write_string(architecture.choices)]
        edges = list(zip(EDGES, architecture.choices, strict=True))
        for node in range(1, NODES):
            terms = [
                f"{NAMES[choice]}({f'node {source}' if source else 'input'})"
                for (target, source), choice in edges
                if target == node and choice != NONE
            ]
            name = f"node {node}" if node < NODES - 1 else "output"
            lines.append(f"  {name} = {' + '.join(terms) or 'zeros'}")
        return lines

    def write(self, architecture: Architecture) -> str:
        return "".join(map(str, architecture.choices))

    def parse(self, text: str) -> Architecture:
        """Six digits, or ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|``.

        Raises UserError for anything else.
        """
        if "~" not in text:
            return super().parse(" ".join(text.strip()))
        choices = read_string(text.strip())
        if choices is None:
            example = write_string((CONV_3X3,) * len(EDGES))
            raise UserError(
                f"{text.strip()[:200]!r} is no cell of {self.name}; one is written {example} with "
                f"{', '.join(NAMES)}"
            )
        return Architecture(self.name, tuple(choices))
