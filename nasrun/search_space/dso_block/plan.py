"""Channels and sides of the stack of blocks, stem and head included, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nasrun.errors import UserError
from nasrun.search_space.dso_block.wiring import CONVOLUTIONS, NAMES, REDUCTIONS, Wiring
from nasrun.search_space.operation import reduced, total
from nasrun.values import Cost, Problem

StemKind = Literal["small", "imagenet"]
"""``small``: one 3×3 convolution. ``imagenet``: two of stride 2, the first to half the channels."""

STRIDES: Mapping[StemKind, tuple[int, ...]] = {"small": (1,), "imagenet": (2, 2)}

KERNELS: Mapping[str, int] = {"sep_conv_3x3": 3, "sep_conv_5x5": 5, "conv_1x1": 1, "conv_3x3": 3}
"""Of what has weights."""


@dataclass(frozen=True)
class Stage:
    """``blocks`` blocks of ``channels`` on feature maps of ``size``×``size`` pixels."""

    channels: int
    size: int
    blocks: int


@dataclass(frozen=True)
class Plan:
    """kind: of the stem. Between two stages stands a reduction."""

    problem: Problem
    kind: StemKind
    stages: tuple[Stage, ...]

    @property
    def stem(self) -> list[tuple[int, int, int]]:
        """Inputs, outputs and stride of each convolution of the stem."""
        strides, channels = STRIDES[self.kind], self.stages[0].channels
        outputs = [channels] * len(strides)
        if len(strides) > 1:
            outputs[0] = max(channels // 2, 1)
        return list(zip([self.problem.channels, *outputs], outputs, strides, strict=False))

    def blocks(self) -> Iterator[tuple[Stage, bool]]:
        """The stage of each block in order, and whether it is the first of its stage."""
        for stage in self.stages:
            for index in range(stage.blocks):
                yield stage, index == 0


def plan_stages(problem: Problem, kind: StemKind, channels: int, blocks: Sequence[int]) -> Plan:
    """Channels doubled and sizes halved between the stages.

    Raises UserError for images too small for that.
    """
    halvings = STRIDES[kind].count(2) + len(blocks) - 1
    if problem.size < 2**halvings:
        raise UserError(
            f"images of {problem.size}×{problem.size} pixels are too small for dso_block with "
            f"stem={kind} and {len(blocks)} stages, which halve them {halvings} times (at least "
            f"{2**halvings}×{2**halvings})"
        )
    size = problem.size
    for stride in STRIDES[kind]:
        size = reduced(size, stride)
    stages = [Stage(channels, size, blocks[0])]
    for count in blocks[1:]:
        stages.append(Stage(2 * stages[-1].channels, reduced(stages[-1].size), count))
    return Plan(problem, kind, tuple(stages))


def network_cost(
    plan: Plan, wirings: Sequence[Wiring], reductions: Sequence[Sequence[bool]]
) -> Cost:
    """The stand-alone network: what it computes, and nothing else.

    wirings: of each block; reductions: the open operations of each.
    """
    costs = [_stem_cost(plan), _head_cost(plan)]
    known: dict[tuple[Stage, bool, Wiring], Cost] = {}  # blocks that share decisions are alike
    for (stage, first), wiring in zip(plan.blocks(), wirings, strict=True):
        key = (stage, first, wiring)
        if key not in known:
            known[key] = block_cost(stage, wiring, first=first)
        costs.append(known[key])
    for before, opened in zip(plan.stages, reductions, strict=False):
        costs.append(_reduction_cost(before, opened))
    return total(costs)


def _norm_conv(inputs: int, outputs: int, kernel: int, size: int) -> Cost:
    """Convolution without bias and batch norm; size: side of the output."""
    weights = inputs * outputs * kernel**2
    return Cost(weights + 2 * outputs, weights * size**2)


def _stem_cost(plan: Plan) -> Cost:
    costs, size = [], plan.problem.size
    for inputs, outputs, stride in plan.stem:
        size = reduced(size, stride)
        costs.append(_norm_conv(inputs, outputs, 3, size))
    return total(costs)


def _head_cost(plan: Plan) -> Cost:
    """Batch norm and linear layer."""
    features, classes = plan.stages[-1].channels, plan.problem.classes
    return Cost(2 * features + (features + 1) * classes, features * classes)


def _reduction_cost(before: Stage, opened: Sequence[bool]) -> Cost:
    """Into twice the channels of the stage before, on maps of half its side."""
    size = reduced(before.size)
    return total(
        _norm_conv(before.channels, 2 * before.channels, KERNELS[name], size)
        for name, on in zip(REDUCTIONS, opened, strict=True)
        if on
    )


def block_cost(stage: Stage, wiring: Wiring, *, first: bool) -> Cost:
    """The operations that are computed, a 1×1 convolution for each that reaches the output, the
    output's batch norm, and the shortcut's convolution in the first block of a stage."""
    channels, size = stage.channels, stage.size
    costs = [operation_cost(node.index, channels, size) for node in wiring.nodes]
    pointwise = Cost(channels**2, channels**2 * size**2)
    costs += [pointwise] * sum(node.output for node in wiring.nodes)
    if wiring.nodes:
        costs.append(Cost(2 * channels, 0))
    if first:
        costs.append(_norm_conv(channels, channels, 1, size))
    return total(costs)


def operation_cost(index: int, channels: int, size: int) -> Cost:
    """Depthwise and pointwise convolution, or a pool; batch norm."""
    kind = index % len(NAMES)
    if kind >= CONVOLUTIONS:
        return Cost(2 * channels, 0)
    weights = channels * (KERNELS[NAMES[kind]] ** 2 + channels)
    return Cost(weights + 2 * channels, weights * size**2)
