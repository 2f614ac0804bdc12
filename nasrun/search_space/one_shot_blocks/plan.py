"""Channels and sides of the stack of cells, stem and head included, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nasrun.errors import UserError
from nasrun.search_space.one_shot_blocks.operations import NAMES, OPTIONS
from nasrun.search_space.one_shot_blocks.wiring import Wiring, needs_of
from nasrun.search_space.operation import reduced, total
from nasrun.values import Cost, Problem

STAGES = 3

StemKind = Literal["small", "imagenet"]
"""``small``: one 3×3 convolution. ``imagenet``: three of stride 2, for images of 64 and more."""

STRIDES: Mapping[StemKind, tuple[int, ...]] = {"small": (1,), "imagenet": (2, 2, 2)}
"""Of the stem's convolutions, which have C channels each, and C / 2 the first of several."""


@dataclass(frozen=True)
class Stage:
    """``cells`` equal cells of ``channels`` on feature maps of ``size``×``size`` pixels."""

    channels: int
    size: int
    cells: int


@dataclass(frozen=True)
class Plan:
    """kind: of the stem."""

    problem: Problem
    kind: StemKind
    stages: tuple[Stage, ...]

    @property
    def cells(self) -> int:
        return sum(stage.cells for stage in self.stages)

    @property
    def stem(self) -> list[tuple[int, int, int]]:
        """Inputs, outputs and stride of each convolution of the stem."""
        strides, channels = STRIDES[self.kind], self.stages[0].channels
        outputs = [channels] * len(strides)
        if len(strides) > 1:
            outputs[0] = max(channels // 2, 1)
        return list(zip([self.problem.channels, *outputs], outputs, strides, strict=False))


def plan_stages(problem: Problem, kind: StemKind, channels: int, cells: int) -> Plan:
    """Channels doubled and sizes halved twice after the stem.

    Raises UserError for images too small for that.
    """
    halvings = STRIDES[kind].count(2) + STAGES - 1
    if problem.size < 2**halvings:
        raise UserError(
            f"images of {problem.size}×{problem.size} pixels are "
            "too small for one_shot_blocks with "
            f"stem={kind}, which halves them {halvings} times (at least "
            f"{2**halvings}×{2**halvings})"
        )
    size = problem.size
    for stride in STRIDES[kind]:
        size = reduced(size, stride)
    stages = [Stage(channels, size, cells)]
    while len(stages) < STAGES:
        stages.append(Stage(2 * stages[-1].channels, reduced(stages[-1].size), cells))
    return Plan(problem, kind, tuple(stages))


def network_cost(plan: Plan, wiring: Wiring) -> Cost:
    """The stand-alone network of that wiring: what it computes, and nothing else."""
    costs = [_stem_cost(plan), _head_cost(plan)]
    needs = needs_of(wiring, plan.cells)
    for index, stage in enumerate(plan.stages):
        here = needs[index * stage.cells : (index + 1) * stage.cells]
        costs += [_cell_cost(stage, wiring)] * sum(need.cell for need in here)
        if index > 0:
            reduction = _reduction_cost(plan.stages[index - 1])
            costs += [reduction] * (here[0].older + here[0].newer)
    return total(costs)


def _stem_cost(plan: Plan) -> Cost:
    """Convolutions without bias; batch norm and ReLU before all but the first."""
    params, macs, size = 0, 0, plan.problem.size
    for index, (inputs, outputs, stride) in enumerate(plan.stem):
        size = reduced(size, stride)
        params += 9 * inputs * outputs + (2 * inputs if index else 0)
        macs += 9 * inputs * outputs * size**2
    return Cost(params, macs)


def _head_cost(plan: Plan) -> Cost:
    """Batch norm and linear layer."""
    features, classes = plan.stages[-1].channels, plan.problem.classes
    return Cost(2 * features + (features + 1) * classes, features * classes)


def _reduction_cost(stage: Stage) -> Cost:
    """That of one state: batch norm, ReLU, 3×3 convolution of stride 2 to twice the channels."""
    weights = 9 * stage.channels * 2 * stage.channels
    return Cost(2 * stage.channels + weights, weights * reduced(stage.size) ** 2)


def _cell_cost(stage: Stage, wiring: Wiring) -> Cost:
    """A batch norm for each state that is read; a 1×1 convolution for each open input, and one for
    the output of each block; the open operations."""
    channels, size = stage.channels, stage.size
    costs = [Cost(2 * channels * len(wiring.states), 0)]
    pointwise = Cost(channels**2, channels**2 * size**2)
    for block in wiring.blocks:
        costs += [pointwise] * (len(block.inputs) + block.on)
        costs += _operations_cost(block.operations, channels, size)
    return total(costs)


def _operations_cost(operations: Sequence[int], channels: int, size: int) -> list[Cost]:
    return [OPTIONS[NAMES[operation]].cost(channels, size, 1) for operation in operations]
