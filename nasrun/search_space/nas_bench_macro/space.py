"""NAS-Bench-Macro as a search space: eight decisions of three options, 6,561 architectures."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import islice

import numpy as np

from nasrun.search_space.additive import AdditiveSpace
from nasrun.search_space.base import Scale
from nasrun.search_space.chain import WidthScale
from nasrun.search_space.gates import GateKind
from nasrun.search_space.graph import Graph, chain_in_stages, with_shape, words
from nasrun.search_space.layer import Layer
from nasrun.search_space.nas_bench_macro.layers import STAGE_WIDTHS, MacroPlan, plan_network
from nasrun.search_space.nas_bench_macro.network import (
    OPTION_NAMES,
    MacroNetwork,
    MacroSupernet,
    list_layers,
)
from nasrun.values import Architecture, Decision, Problem

LAYER_COUNT = sum(count for count, _ in STAGE_WIDTHS)
IDENTITY = 0


def _stages(architecture: Architecture) -> Iterator[tuple[int, list[int]]]:
    """Yield the choice of each stage's first layer, and those of its other layers."""
    choices = iter(architecture.choices)
    for count, _ in STAGE_WIDTHS:
        yield next(choices), list(islice(choices, count - 1))


class NasBenchMacro(AdditiveSpace):
    """``nas_bench_macro``: the space of NAS-Bench-Macro (Su et al., 2021, arXiv 2103.11922).

    An architecture is written as eight digits, one a layer: 0 identity, 1 MBConv of kernel 3
    and expansion 3, 2 MBConv of kernel 5 and expansion 6. An identity after the first layer of its
    stage does nothing, so its place there makes no difference: there are 3,969 networks.

    affine: whether the batch norms of the supernet's options scale and shift; those of stand-alone
    networks always do. At width 1, on 3×32×32 images of 10 classes, ``Cost.params`` and
    ``Cost.macs`` are the published ``params`` and ``flops``, the linear layer's 12,800
    multiply-adds included.
    """

    name = "nas_bench_macro"
    gate_kinds: frozenset[GateKind] = frozenset({"path", "mix"})

    def __init__(self, *, affine: bool, search: WidthScale, final: WidthScale) -> None:
        self.affine = affine
        self.scales: dict[Scale, WidthScale] = {"search": search, "final": final}

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        return tuple(Decision(f"layer{layer}/op", OPTION_NAMES) for layer in range(LAYER_COUNT))

    def _plan(self, problem: Problem, scale: Scale) -> MacroPlan:
        return plan_network(problem, self.scales[scale].width)

    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> MacroSupernet:
        self.refuse_auxiliary(auxiliary)
        return MacroSupernet(self._plan(problem, "search"), problem, affine=self.affine)

    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> MacroNetwork:
        self.refuse_auxiliary(auxiliary)
        choices = self.check(architecture).choices
        return MacroNetwork(self._plan(problem, scale), problem, choices)

    def layers(
        self, architecture: Architecture, problem: Problem, scale: Scale = "search"
    ) -> list[Layer]:
        """List stem, layers and head.

        Names contain the operation, its channels, the input's side and the stride:
        ``nas_bench_macro/mbconv_3x3_e3 32-64 32 s2``.
        """
        return list_layers(self._plan(problem, scale), problem, architecture.choices)

    def graphs(
        self, architecture: Architecture, problem: Problem, scale: Scale = "final"
    ) -> dict[str, Graph]:
        """The stages of the chain, with the shape of each output."""
        plan = self._plan(problem, scale)
        labels = [
            with_shape(words(OPTION_NAMES[choice]), layer.outputs, layer.size_out, layer.stride)
            for layer, choice in zip(plan.layers, architecture.choices, strict=True)
        ]
        stem = with_shape("stem conv 3×3", plan.stem, problem.size)
        head = with_shape("conv 1×1", plan.features, plan.size)
        return chain_in_stages(problem, stem, labels, head, [count for count, _ in STAGE_WIDTHS])

    def canonical(self, architecture: Architecture) -> Architecture:
        """Put identities that do nothing last in their stage."""
        choices: list[int] = []
        for first, rest in _stages(architecture):
            blocks = [choice for choice in rest if choice != IDENTITY]
            choices += [first, *blocks, *[IDENTITY] * (len(rest) - len(blocks))]
        return Architecture(self.name, tuple(choices))

    def equivalent(self, architecture: Architecture, rng: np.random.Generator) -> Architecture:
        """Put identities that do nothing at uniformly random places of their stage."""
        choices: list[int] = []
        for first, rest in _stages(architecture):
            blocks = iter([choice for choice in rest if choice != IDENTITY])
            places = rng.permutation([choice != IDENTITY for choice in rest])
            choices += [first, *(next(blocks) if place else IDENTITY for place in places)]
        return Architecture(self.name, tuple(choices))

    def write(self, architecture: Architecture) -> str:
        return "".join(map(str, architecture.choices))

    def parse(self, text: str) -> Architecture:
        """Read eight digits; raises UserError for anything else."""
        return super().parse(" ".join(text.strip()))
