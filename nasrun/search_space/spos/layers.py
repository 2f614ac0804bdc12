"""The four operations of a block, as lists of convolutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from nasrun.search_space.depthwise import Depthwise
from nasrun.search_space.operation import Pointwise
from nasrun.search_space.spos.plan import BlockPlan


@dataclass(frozen=True)
class ConvPlan:
    """A convolution without bias, its batch norm, and a ReLU or none.

    kernel: 1 is a pointwise convolution, any other a depthwise one.
    """

    inputs: int
    outputs: int
    kernel: int
    stride: int
    relu: bool

    def convolution(self) -> nn.Conv2d:
        if self.kernel == 1:
            return Pointwise(self.inputs, self.outputs, self.stride)
        return Depthwise(self.inputs, self.kernel, self.stride)


class ConvNorm(nn.Sequential):
    """A convolution as a module: [B, inputs, H, W] -> [B, outputs, ceil(H / stride), ...]."""

    def __init__(self, plan: ConvPlan) -> None:
        relu = [nn.ReLU()] if plan.relu else []
        super().__init__(plan.convolution(), nn.BatchNorm2d(plan.outputs), *relu)


def _shuffle(kernel: int) -> Callable[[BlockPlan, int], list[ConvPlan]]:
    """1×1 to ``mid`` channels, depthwise k×k with the stride, 1×1."""

    def main(block: BlockPlan, mid: int) -> list[ConvPlan]:
        return [
            ConvPlan(block.branch_inputs, mid, 1, 1, relu=True),
            ConvPlan(mid, mid, kernel, block.stride, relu=False),
            ConvPlan(mid, block.branch_outputs, 1, 1, relu=True),
        ]

    return main


def _xception(block: BlockPlan, mid: int) -> list[ConvPlan]:
    """Three times depthwise 3×3 and 1×1; the first depthwise has the stride."""
    inputs = block.branch_inputs
    return [
        ConvPlan(inputs, inputs, 3, block.stride, relu=False),
        ConvPlan(inputs, mid, 1, 1, relu=True),
        ConvPlan(mid, mid, 3, 1, relu=False),
        ConvPlan(mid, mid, 1, 1, relu=True),
        ConvPlan(mid, mid, 3, 1, relu=False),
        ConvPlan(mid, block.branch_outputs, 1, 1, relu=True),
    ]


@dataclass(frozen=True)
class Operation:
    """An operation of a block.

    main: makes the convolutions of the main branch with ``mid`` channels inside.
    kernel: kernel of the depthwise convolution in the other branch, if there is one.
    """

    name: str
    kernel: int
    main: Callable[[BlockPlan, int], list[ConvPlan]]

    def projection(self, block: BlockPlan) -> list[ConvPlan]:
        """List the convolutions of the other branch: none at stride 1, else depthwise and 1×1."""
        if block.stride == 1:
            return []
        channels = block.branch_inputs
        return [
            ConvPlan(channels, channels, self.kernel, block.stride, relu=False),
            ConvPlan(channels, channels, 1, 1, relu=True),
        ]


OPERATIONS = (
    Operation("shuffle_3x3", 3, _shuffle(3)),
    Operation("shuffle_5x5", 5, _shuffle(5)),
    Operation("shuffle_7x7", 7, _shuffle(7)),
    Operation("xception", 3, _xception),
)
"""The operations in the order of the published digits 0 to 3."""

OPERATION_NAMES = tuple(operation.name for operation in OPERATIONS)


@dataclass(frozen=True)
class Choice:
    """The choice in a block. op: index of the operation. mid: channels inside it."""

    op: int
    mid: int
