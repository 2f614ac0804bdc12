"""SPOS' mixed precision as a search space: the bits of each convolution of a ResNet."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field

from nasrun.search_space.additive import AdditiveSpace
from nasrun.search_space.base import Scale
from nasrun.search_space.chain import WidthScale
from nasrun.search_space.gates import GateKind
from nasrun.search_space.graph import Graph
from nasrun.search_space.layer import Layer
from nasrun.search_space.spos_quantized.graphs import graphs_of
from nasrun.search_space.spos_quantized.layers import (
    BLOCKS_OF_DEPTH,
    Bits,
    ResNetPlan,
    StemKind,
    parse_bits,
    plan_network,
)
from nasrun.search_space.spos_quantized.network import (
    BlockSettings,
    Norms,
    QuantizedNetwork,
    QuantizedSupernet,
    list_layers,
)
from nasrun.values import Architecture, Decision, Problem


class SposQuantized(AdditiveSpace):
    """``spos_quantized``: the bits of each convolution of a ResNet, as in SPOS.

    Source: Guo et al. 2020, arXiv 1904.00420, section 4.3; its search over channels is left out.

    There is a decision for each 3×3 convolution of the blocks. The 1×1 convolution of a shortcut
    has the bits of its block's first one, whose input it shares. The stem and the linear layer stay
    in full precision. A mixture is the weighted sum of a layer's outputs with several bits, all
    from the same weights (DNAS: Wu et al. 2018, arXiv 1812.00090).

    Arithmetic of few bits is simulated on floats, so latencies measured here do not hold for
    hardware with such arithmetic; use a table of latencies from there.

    Options differ only in ``Cost.bitops``: a stand-alone network has one clipping value per
    decision, whatever its bits. On 3×224×224 images of 1000 classes, with the ImageNet stem and
    width 1, ``bitops`` are the published BitOps, which include the shortcuts, in units of 2^30:
    6.32 G for a ResNet-18 of 2 bits is 4 × 1,695,547,392 multiply-adds.
    """

    name = "spos_quantized"
    gate_kinds: frozenset[GateKind] = frozenset({"path", "mix"})
    decides_bits = True

    def __init__(
        self,
        *,
        depth: Literal[18, 34],
        stem: StemKind,
        bits: Annotated[list[str], Field(max_length=64)],
        alpha: Annotated[float, Field(gt=0, le=1e6)],
        norms: Norms,
        affine: bool,
        search: WidthScale,
        final: WidthScale,
    ) -> None:
        """Take the settings of the space.

        bits: the options, ``w2a4`` for 2 bits of weights and 4 of activations.
        alpha: clipping values of activations at the start.
        norms: batch norms of the supernet's layers, ``shared`` by the options or ``per_option``.
        affine: whether these scale and shift; in stand-alone networks they always do.
        """
        self.depth = depth
        self.stem: StemKind = stem
        self.bits = parse_bits(bits)
        self.alpha, self.norms, self.affine = alpha, norms, affine
        self.scales: dict[Scale, WidthScale] = {"search": search, "final": final}

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        options = tuple(map(str, self.bits))
        layers = 2 * sum(BLOCKS_OF_DEPTH[self.depth])
        return tuple(Decision(f"layer{layer:02}/bits", options) for layer in range(layers))

    def bits_of(self, architecture: Architecture) -> tuple[Bits, ...]:
        """Return the bits of each layer."""
        return tuple(self.bits[choice] for choice in architecture.choices)

    def _plan(self, problem: Problem, scale: Scale) -> ResNetPlan:
        return plan_network(problem, self.depth, self.stem, self.scales[scale].width)

    def _settings(self, *, affine: bool) -> BlockSettings:
        return BlockSettings(self.alpha, self.norms, affine)

    def supernet(self, problem: Problem, *, auxiliary: bool = False) -> QuantizedSupernet:
        self.refuse_auxiliary(auxiliary)
        plan = self._plan(problem, "search")
        return QuantizedSupernet(plan, problem, self.bits, self._settings(affine=self.affine))

    def network(
        self, architecture: Architecture, problem: Problem, scale: Scale, *, auxiliary: bool = False
    ) -> QuantizedNetwork:
        self.refuse_auxiliary(auxiliary)
        bits = self.bits_of(self.check(architecture))
        plan = self._plan(problem, scale)
        return QuantizedNetwork(plan, problem, bits, self._settings(affine=True))

    def layers(
        self, architecture: Architecture, problem: Problem, scale: Scale = "search"
    ) -> list[Layer]:
        """List stem, convolutions of the blocks, and head.

        Names contain a convolution's place in its block, channels, the input's side, stride and
        bits: ``spos_quantized/first 64-128 32 s2 w2a4``.
        """
        plan, bits = self._plan(problem, scale), self.bits_of(architecture)
        return list_layers(plan, problem, bits, kind=self.stem, alpha=self.alpha)

    def graphs(
        self, architecture: Architecture, problem: Problem, scale: Scale = "final"
    ) -> dict[str, Graph]:
        """The blocks of each stage, with the bits of each convolution and shortcut."""
        counts = BLOCKS_OF_DEPTH[self.depth]
        return graphs_of(self._plan(problem, scale), problem, self.bits_of(architecture), counts)
