"""NAS-Bench-Macro as a search space: eight decisions of three options, 6,561 architectures."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from nasrun.errors import UserError
from nasrun.search_space.base import Piece, Scale, SearchSpace
from nasrun.search_space.gates import GateKind
from nasrun.search_space.nas_bench_macro.layers import (
    OPTIONS,
    STAGES,
    MacroPlan,
    plan_network,
    pointwise_cost,
)
from nasrun.search_space.nas_bench_macro.network import MacroNetwork, MacroSupernet
from nasrun.search_space.nas_bench_macro.pieces import list_pieces
from nasrun.search_space.operation import total
from nasrun.values import Architecture, Cost, Decision, Problem

LAYERS = sum(count for count, _ in STAGES)
IDENTITY = 0


class MacroScale(BaseModel):
    """width: factor of all channels; 1 is the published network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: Annotated[float, Field(gt=0, le=16)]


def _stages(architecture: Architecture) -> Iterator[tuple[int, list[int]]]:
    """The choices of each stage: that of its first layer, and those of the others."""
    choices = iter(architecture.choices)
    for count, _ in STAGES:
        yield next(choices), list(islice(choices, count - 1))


class NasBenchMacro(SearchSpace):
    """``nas_bench_macro``: the space of NAS-Bench-Macro (Su et al., CVPR 2021, arXiv 2103.11922).

    Written down, an architecture is eight digits, one a layer: 0 identity, 1 MBConv of kernel 3
    and expansion 3, 2 MBConv of kernel 5 and expansion 6. An identity after the first layer of its
    stage does nothing, so where it stands there makes no difference: 3,969 networks.

    affine: whether the batch norms of the supernet's options scale and shift; those of stand-alone
    networks always do. At width 1, on 3×32×32 images of 10 classes, ``Cost.params`` and
    ``Cost.macs`` are the published ``params`` and ``flops``, the linear layer's 12,800
    multiply-adds included.
    """

    name = "nas_bench_macro"
    gate_kinds: frozenset[GateKind] = frozenset({"path", "mix"})

    def __init__(self, *, affine: bool, search: MacroScale, final: MacroScale) -> None:
        self.affine = affine
        self.scales: dict[Scale, MacroScale] = {"search": search, "final": final}

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        return tuple(Decision(f"layer{layer}/op", tuple(OPTIONS)) for layer in range(LAYERS))

    def _plan(self, problem: Problem, scale: Scale, *, auxiliary: bool = False) -> MacroPlan:
        if auxiliary:
            raise UserError(
                f"{self.name} has no auxiliary head: set auxiliary_weight=0 for this trainer"
            )
        return plan_network(problem, self.scales[scale].width)

    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> MacroSupernet:
        plan = self._plan(problem, "search", auxiliary=auxiliary)
        return MacroSupernet(plan, problem, affine=self.affine)

    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> MacroNetwork:
        plan = self._plan(problem, scale, auxiliary=auxiliary)
        return MacroNetwork(plan, problem, self.check(architecture).choices)

    def cost(self, architecture: Architecture, problem: Problem, scale: Scale = "search") -> Cost:
        plan, options = self._plan(problem, scale), tuple(OPTIONS.values())
        stem = 9 * problem.channels * plan.stem
        return total(
            [
                Cost(stem + 2 * plan.stem, stem * problem.size**2),
                *(
                    options[choice].cost(layer)
                    for layer, choice in zip(plan.layers, architecture.choices, strict=True)
                ),
                pointwise_cost(plan.layers[-1].outputs, plan.features, plan.size),
                Cost((plan.features + 1) * problem.classes, plan.features * problem.classes),
            ]
        )

    def cost_bound(self, problem: Problem, scale: Scale = "search") -> Cost:
        """The network that has the largest option everywhere, which is one of the space."""
        return self.cost(Architecture(self.name, (len(OPTIONS) - 1,) * LAYERS), problem, scale)

    @property
    def additive(self) -> tuple[tuple[int, ...], ...]:
        return tuple((index,) for index in range(len(self.decisions)))

    def pieces(
        self, architecture: Architecture, problem: Problem, scale: Scale = "search"
    ) -> list[Piece]:
        """Stem, layers and head. Names tell the operation, its channels, the input's side and the
        stride: ``nas_bench_macro/mbconv_3x3_e3 32-64 32 s2``."""
        return list_pieces(self._plan(problem, scale), problem, architecture.choices)

    def canonical(self, architecture: Architecture) -> Architecture:
        """Identities that do nothing come last in their stage."""
        choices: list[int] = []
        for first, rest in _stages(architecture):
            blocks = [choice for choice in rest if choice != IDENTITY]
            choices += [first, *blocks, *[IDENTITY] * (len(rest) - len(blocks))]
        return Architecture(self.name, tuple(choices))

    def equivalent(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """Identities that do nothing stand anywhere in their stage, all places alike."""
        choices: list[int] = []
        for first, rest in _stages(architecture):
            blocks = iter([choice for choice in rest if choice != IDENTITY])
            places = rng.permutation([choice != IDENTITY for choice in rest])
            choices += [first, *(next(blocks) if place else IDENTITY for place in places)]
        return Architecture(self.name, tuple(choices))

    def write(self, architecture: Architecture) -> str:
        return "".join(map(str, architecture.choices))

    def parse(self, text: str) -> Architecture:
        """Eight digits; raises UserError for anything else."""
        return super().parse(" ".join(text.strip()))
