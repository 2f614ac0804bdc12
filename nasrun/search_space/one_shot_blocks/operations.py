"""The operations of a choice block.

Batch norm and ReLU come before each convolution, so a block sums plain convolutions, identity and
pools. Source: Bender et al. 2018, by general knowledge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from nasrun.search_space.depthwise import Depthwise
from nasrun.search_space.operation import OPERATIONS as COMMON
from nasrun.search_space.operation import Operation, Pointwise


def norm_relu(channels: int) -> list[nn.Module]:
    """Batch norm and ReLU: [B, C, H, W] -> the same shape; 2 C parameters."""
    return [nn.BatchNorm2d(channels), nn.ReLU()]


@dataclass(frozen=True)
class NormSeparableConv(Operation):
    """(Batch norm, ReLU, depthwise k×k, pointwise 1×1) twice; the first depthwise is strided."""

    kernel: int

    def module(self, channels: int, stride: int) -> nn.Module:
        def half(stride: int) -> list[nn.Module]:
            depthwise = Depthwise(channels, self.kernel, stride)
            return [*norm_relu(channels), depthwise, Pointwise(channels, channels)]

        return nn.Sequential(*half(stride), *half(1))


@dataclass(frozen=True)
class NormConvPair(Operation):
    """(Batch norm, ReLU, convolution) twice, kernels 1×k and k×1; each strides its long axis."""

    kernel: int

    def module(self, channels: int, stride: int) -> nn.Module:
        k, half = self.kernel, self.kernel // 2
        across = nn.Conv2d(channels, channels, (1, k), (1, stride), (0, half), bias=False)
        down = nn.Conv2d(channels, channels, (k, 1), (stride, 1), (half, 0), bias=False)
        return nn.Sequential(*norm_relu(channels), across, *norm_relu(channels), down)


BLOCK_OPERATIONS: Mapping[str, Operation] = {
    "identity": COMMON["identity"],
    "sep_conv_3x3": NormSeparableConv(3),
    "sep_conv_5x5": NormSeparableConv(5),
    "sep_conv_7x7": NormSeparableConv(7),
    "conv_1x7_7x1": NormConvPair(7),
    "max_pool_3x3": COMMON["max_pool_3x3"],
    "avg_pool_3x3": COMMON["avg_pool_3x3"],
}
"""The operations by name, in the order of the decisions."""

OPERATION_NAMES = tuple(BLOCK_OPERATIONS)
