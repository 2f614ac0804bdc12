"""The operations on edges of ``darts_cell``, and those that calibrate the inputs of cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from nasrun.search_space.operation import OPERATIONS, Operation, ReluConvNorm, ReluReduce
from nasrun.search_space.stacked_cells import CellPlan


@dataclass(frozen=True)
class Skip(Operation):
    """The input itself; at stride 2 a ``ReluReduce``."""

    def module(self, channels: int, stride: int) -> nn.Module:
        return nn.Identity() if stride == 1 else ReluReduce(channels, channels)


EDGE_OPERATIONS: Mapping[str, Operation] = {
    "none": OPERATIONS["zero"],
    "max_pool_3x3": OPERATIONS["max_pool_3x3"],
    "avg_pool_3x3": OPERATIONS["avg_pool_3x3"],
    "skip_connect": Skip(),
    "sep_conv_3x3": OPERATIONS["sep_conv_3x3"],
    "sep_conv_5x5": OPERATIONS["sep_conv_5x5"],
    "dil_conv_3x3": OPERATIONS["dil_conv_3x3"],
    "dil_conv_5x5": OPERATIONS["dil_conv_5x5"],
}
"""The operations by their published names, in the published order."""

OPERATION_NAMES = tuple(EDGE_OPERATIONS)
NONE = 0
POOLS = (1, 2)
SKIP = 3


def calibrations(plan: CellPlan) -> list[nn.Module]:
    """Bring the outputs of cells k-2 and k-1 to this cell's channels and one resolution."""
    return [
        ReluReduce(source.channels, plan.channels)
        if source.size != plan.size_in
        else ReluConvNorm(source.channels, plan.channels)
        for source in plan.inputs
    ]
