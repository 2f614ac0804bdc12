"""Exact costs of ``dso_block`` by formulas, and the kinds of its stems.

Fitting the width to a budget needs the costs at about ten widths for each architecture. Counting
layers for all of them would take a hundred times as long.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from nasrun.search_space.dso_block.wiring import (
    CONVOLUTION_COUNT,
    OPERATION_NAMES,
    REDUCTIONS,
    Wiring,
)
from nasrun.search_space.layer import sum_costs
from nasrun.search_space.stages import Stage, StagePlan, reduced
from nasrun.values import Cost, MapSize

StemKind = Literal["small", "imagenet"]
"""``small``: one 3×3 convolution. ``imagenet``: two of stride 2, the first half as wide."""

STEM_STRIDES: Mapping[StemKind, tuple[int, ...]] = {"small": (1,), "imagenet": (2, 2)}

KERNELS: Mapping[str, int] = {"sep_conv_3x3": 3, "sep_conv_5x5": 5, "conv_1x1": 1, "conv_3x3": 3}
"""Kernel sizes of the operations that have weights."""


def network_cost(
    plan: StagePlan, wirings: Sequence[Wiring], reductions: Sequence[Sequence[bool]]
) -> Cost:
    """Add up the cost of everything that the stand-alone network computes.

    wirings: of each block; reductions: the open operations of each.
    """
    costs = [_stem_cost(plan), _head_cost(plan)]
    known: dict[tuple[Stage, bool, Wiring], Cost] = {}  # blocks that share decisions are equal
    for (stage, first), wiring in zip(plan.blocks(), wirings, strict=True):
        key = (stage, first, wiring)
        if key not in known:
            known[key] = block_cost(stage, wiring, first=first)
        costs.append(known[key])
    for before, opened in zip(plan.stages, reductions, strict=False):
        costs.append(_reduction_cost(before, opened))
    return sum_costs(costs)


def _norm_conv(inputs: int, outputs: int, kernel: int, size: MapSize) -> Cost:
    """Cost of a convolution without bias and a batch norm; size: side of the output."""
    weights = inputs * outputs * kernel**2
    return Cost(weights + 2 * outputs, weights * size.area)


def _stem_cost(plan: StagePlan) -> Cost:
    costs, size = [], plan.problem.size
    for inputs, outputs, stride in plan.stem:
        size = reduced(size, stride)
        costs.append(_norm_conv(inputs, outputs, 3, size))
    return sum_costs(costs)


def _head_cost(plan: StagePlan) -> Cost:
    """Cost of batch norm and linear layer."""
    features, classes = plan.stages[-1].channels, plan.problem.classes
    return Cost(2 * features + (features + 1) * classes, features * classes)


def _reduction_cost(before: Stage, opened: Sequence[bool]) -> Cost:
    """Cost of the open convolutions to twice the channels, on maps of half the side."""
    size = reduced(before.size)
    return sum_costs(
        _norm_conv(before.channels, 2 * before.channels, KERNELS[name], size)
        for name, on in zip(REDUCTIONS, opened, strict=True)
        if on
    )


def block_cost(stage: Stage, wiring: Wiring, *, first: bool) -> Cost:
    """Return the cost of a block.

    It counts the operations that are computed, a 1×1 convolution for each that reaches the output,
    the output's batch norm, and in the first block of a stage the shortcut's convolution.
    """
    channels, size = stage.channels, stage.size
    costs = [operation_cost(node.index, channels, size) for node in wiring.nodes]
    pointwise = Cost(channels**2, channels**2 * size.area)
    costs += [pointwise] * sum(node.output for node in wiring.nodes)
    if wiring.nodes:
        costs.append(Cost(2 * channels, 0))
    if first:
        costs.append(_norm_conv(channels, channels, 1, size))
    return sum_costs(costs)


def operation_cost(index: int, channels: int, size: MapSize) -> Cost:
    """Cost of depthwise and pointwise convolution, or of a pool, and of a batch norm."""
    kind = index % len(OPERATION_NAMES)
    if kind >= CONVOLUTION_COUNT:
        return Cost(2 * channels, 0)
    weights = channels * (KERNELS[OPERATION_NAMES[kind]] ** 2 + channels)
    return Cost(weights + 2 * channels, weights * size.area)
