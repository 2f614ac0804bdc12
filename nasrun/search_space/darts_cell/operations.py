"""The operations on edges of ``darts_cell``, and those that calibrate the inputs of cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from nasrun.errors import UserError
from nasrun.search_space.operation import OPERATIONS, Operation, ReluConvNorm, ReluReduce
from nasrun.search_space.stacked_cells import CellPlan


@dataclass(frozen=True)
class Skip(Operation):
    """The input itself; at stride 2 a ``ReluReduce``."""

    def module(self, channels: int, stride: int) -> nn.Module:
        return nn.Identity() if stride == 1 else ReluReduce(channels, channels)


class SubsampledInput(nn.Module):
    """Each ``stride``-th pixel of the input; edges put white noise of its shape in its place."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride]


@dataclass(frozen=True)
class WhiteNoise(Operation):
    """Standard normal noise, whatever the input is; of S4 (RobustDARTS)."""

    def module(self, channels: int, stride: int) -> nn.Module:
        return SubsampledInput(stride)


EDGE_OPERATIONS: Mapping[str, Operation] = {
    "none": OPERATIONS["zero"],
    "max_pool_3x3": OPERATIONS["max_pool_3x3"],
    "avg_pool_3x3": OPERATIONS["avg_pool_3x3"],
    "skip_connect": Skip(),
    "sep_conv_3x3": OPERATIONS["sep_conv_3x3"],
    "sep_conv_5x5": OPERATIONS["sep_conv_5x5"],
    "dil_conv_3x3": OPERATIONS["dil_conv_3x3"],
    "dil_conv_5x5": OPERATIONS["dil_conv_5x5"],
    "noise": WhiteNoise(),
}
"""The operations by their published names, in the published order; the last is in S4 alone."""

EVERY_NAME = tuple(EDGE_OPERATIONS)
OPERATION_NAMES = EVERY_NAME[:-1]
"""The operations of DARTS' space."""

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


OperationSet = Literal["all", "s1", "s2", "s3", "s4"]
"""Operations of an edge: DARTS' eight, or those of the small spaces of RobustDARTS (§3)."""

_S1: tuple[tuple[str, ...], tuple[str, ...]] = (
    (  # of the edges of the normal cell: the two that weighed most in earlier searches
        *("skip_connect dil_conv_3x3", "skip_connect dil_conv_5x5"),
        *("skip_connect dil_conv_5x5", "skip_connect sep_conv_3x3", "skip_connect dil_conv_3x3"),
        *("max_pool_3x3 skip_connect", "skip_connect sep_conv_3x3"),
        *("skip_connect sep_conv_3x3", "skip_connect dil_conv_3x3"),
        *("skip_connect sep_conv_3x3", "max_pool_3x3 skip_connect"),
        *("skip_connect dil_conv_3x3", "dil_conv_3x3 dil_conv_5x5", "dil_conv_3x3 dil_conv_5x5"),
    ),
    (  # of the reduction cell
        *("max_pool_3x3 avg_pool_3x3", "max_pool_3x3 dil_conv_3x3"),
        *("max_pool_3x3 avg_pool_3x3", "max_pool_3x3 avg_pool_3x3", "skip_connect dil_conv_5x5"),
        *("max_pool_3x3 avg_pool_3x3", "max_pool_3x3 sep_conv_3x3"),
        *("skip_connect dil_conv_3x3", "skip_connect dil_conv_5x5"),
        *("max_pool_3x3 avg_pool_3x3", "max_pool_3x3 avg_pool_3x3"),
        *("skip_connect dil_conv_5x5", "skip_connect dil_conv_5x5", "skip_connect dil_conv_5x5"),
    ),
)
"""Operations of S1, edge by edge; its released code, ``src/spaces.py``."""

_OF_EACH: Mapping[str, tuple[str, ...]] = {
    "all": OPERATION_NAMES,
    "s2": ("none", "skip_connect", "sep_conv_3x3"),
    "s3": ("none", "skip_connect", "sep_conv_3x3"),
    "s4": ("none", "sep_conv_3x3", "noise"),
}

NONE_IN_MIXTURES = ("all", "s3")
"""Sets in which ``none`` competes with the others; elsewhere it only closes edges."""


def options_of_edges(operations: OperationSet, edges: int) -> tuple[tuple[str, ...], ...]:
    """Return the names of the options of each edge of both cells, ``none`` first.

    edges: of one cell. Raises UserError if the set is for cells of another size.
    """
    if operations != "s1":
        return (_OF_EACH[operations],) * (2 * edges)
    if edges != len(_S1[0]):
        raise UserError(
            "search_space.operations=s1 lists operations for each edge of four nodes: set "
            "search_space.nodes=4"
        )
    return tuple(("none", *pair.split()) for cell in _S1 for pair in cell)
