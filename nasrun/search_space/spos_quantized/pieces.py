"""What a stand-alone network of ``spos_quantized`` computes, each operation by itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from nasrun.search_space.base import Piece
from nasrun.search_space.spos_quantized.layers import Bits, ConvPlan, ResNetPlan, Stem, pairs
from nasrun.search_space.spos_quantized.network import Pact, QuantisedConv, stem
from nasrun.values import Problem

Role = Literal["first", "second", "shortcut"]
"""Which convolution of a block."""


class LoneConv(nn.Module):
    """One convolution of a block: [B, inputs, H, W] -> [B, outputs, H', W'].

    ``first`` and ``second`` quantise their input, ``shortcut`` shares that of ``first``. With
    ``second`` goes what ends the block, addition and ReLU; its own input, which is of that shape,
    stands in for the shortcut. So each convolution hangs on the bits of one decision.
    """

    def __init__(self, plan: ConvPlan, bits: Bits, role: Role, alpha: float) -> None:
        super().__init__()
        self.bits, self.ends = bits, role == "second"
        self.input = None if role == "shortcut" else Pact((bits.activations,), alpha)
        self.convolution = QuantisedConv(plan, (bits,), "shared")

    def forward(self, x: Tensor) -> Tensor:
        quantised = x if self.input is None else self.input(x, self.bits.activations)
        out: Tensor = self.convolution(quantised, self.bits)
        return F.relu(x + out) if self.ends else out


def list_pieces(
    plan: ResNetPlan, problem: Problem, bits: Sequence[Bits], *, kind: Stem, alpha: float
) -> list[Piece]:
    """Stem, the convolutions of the blocks, head. kind: of the stem."""
    found = [
        Piece(
            f"spos_quantized/stem_{kind} {problem.channels}-{plan.stem.outputs} {problem.size}",
            (problem.channels, problem.size, problem.size),
            partial(stem, plan),
        )
    ]
    for block, (first, second) in zip(plan.blocks, pairs(bits), strict=True):
        found.append(_convolution(block.first, first, "first", alpha))
        found.append(_convolution(block.second, second, "second", alpha))
        if block.shortcut:
            found.append(_convolution(block.shortcut, first, "shortcut", alpha))
    return [*found, _head(plan, problem)]


def _convolution(plan: ConvPlan, bits: Bits, role: Role, alpha: float) -> Piece:
    channels = f"{plan.inputs}-{plan.outputs}"
    return Piece(
        f"spos_quantized/{role} {channels} {plan.size} s{plan.stride} {bits}",
        (plan.inputs, plan.size, plan.size),
        partial(LoneConv, plan, bits, role, alpha),
    )


def _head(plan: ResNetPlan, problem: Problem) -> Piece:
    size = plan.blocks[-1].second.size_out

    def build() -> nn.Module:
        return nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(plan.features, problem.classes)
        )

    name = f"spos_quantized/head {plan.features}-{problem.classes} {size}"
    return Piece(name, (plan.features, size, size), build)
