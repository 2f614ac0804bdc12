"""The operations of ``general_cell``: those of DARTS' released code, and of its heirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from nasrun.search_space.darts_cell.operations import EDGE_OPERATIONS as OF_DARTS
from nasrun.search_space.operation import OPERATIONS, Operation, Pool


@dataclass(frozen=True)
class ConvPair(Operation):
    """ReLU, convolution 1×k, convolution k×1, batch norm; each has the stride of its long side.

    Source: ``conv_7x1_1x7`` in the released code of DARTS, ``conv_3x1_1x3`` in AutoDL-Projects.
    """

    kernel: int

    def module(self, channels: int, stride: int) -> nn.Module:
        side, pad = self.kernel, self.kernel // 2

        def conv(kernel: tuple[int, int], strides: tuple[int, int]) -> nn.Module:
            padding = (pad if kernel[0] > 1 else 0, pad if kernel[1] > 1 else 0)
            return nn.Conv2d(channels, channels, kernel, strides, padding, bias=False)

        return nn.Sequential(
            nn.ReLU(),
            conv((1, side), (1, stride)),
            conv((side, 1), (stride, 1)),
            nn.BatchNorm2d(channels),
        )


NODE_OPERATIONS: Mapping[str, Operation] = {
    **OF_DARTS,
    "sep_conv_7x7": OPERATIONS["sep_conv_7x7"],
    "conv_7x1_1x7": ConvPair(7),
    "conv_3x1_1x3": ConvPair(3),
    "conv_1x1": OPERATIONS["conv_1x1"],
    "conv_3x3": OPERATIONS["conv_3x3"],
    "max_pool_2x2": OPERATIONS["max_pool_2x2"],
    "max_pool_5x5": OPERATIONS["max_pool_5x5"],
    "max_pool_7x7": Pool("max", 7),
}
"""The operations by name; new ones go to the end, since architectures number them."""

OPERATION_NAMES = tuple(NODE_OPERATIONS)
