"""Edges of a cell: some of the operations, on all channels or on a share of them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from nasrun.search_space.darts_cell.operations import (
    EDGE_OPERATIONS,
    EVERY_NAME,
    NONE,
    POOLS,
    SubsampledInput,
)
from nasrun.search_space.gates import Gate, gate_without, mixed
from nasrun.search_space.noise import Noise
from nasrun.search_space.operation import OPERATIONS
from nasrun.search_space.partial_channels import join_bypass


class Edge(nn.Module):
    """[B, C, H, W] -> [B, C, ceil(H / stride), ceil(W / stride)]; None if nothing flows.

    ``none`` is not computed: it adds nothing.
    """

    def __init__(
        self, channels: int, stride: int, options: Iterable[int], *, norm_pools: bool
    ) -> None:
        """Build the options that the edge has.

        norm_pools: whether a batch norm without scale and shift follows the pools, as in the
        supernet of DARTS.
        """
        super().__init__()
        self.options = nn.ModuleDict()
        for option in options:
            module = EDGE_OPERATIONS[EVERY_NAME[option]].module(channels, stride)
            if norm_pools and option in POOLS:
                module = nn.Sequential(module, nn.BatchNorm2d(channels, affine=False))
            if option != NONE:
                self.options[str(option)] = module

    def forward(self, x: Tensor, gate: Gate, noise: Noise) -> Tensor | None:
        open_ = gate_without(gate, NONE)
        return None if open_ is None else self.mix(x, open_, noise)

    def mix(self, x: Tensor, gate: Gate, noise: Noise) -> Tensor:
        """Mix the open options' outputs.

        A plain skip has skip dropout, and all other operations, the skip of stride 2 among them,
        have drop-path (released codes of P-DARTS and DARTS).
        """

        def run(option: int) -> Tensor:
            operation = self.options[str(option)]
            out: Tensor = operation(x)
            if isinstance(operation, nn.Identity):
                return noise.skip(out)
            if isinstance(operation, SubsampledInput):
                return noise.white(out)
            # DARTS drops in all cells as often as in the last one, whose depth is 1.
            return noise.drop_path(out, 1.0)

        return mixed(gate, run)


class PartialEdge(Edge):
    """An edge whose operations see the first C / divisor channels; the others go round them.

    At stride 2 the others are max-pooled over 2×2. See ``join_bypass``. If only ``none`` is open,
    nothing flows.
    Source: PC-DARTS (Xu et al., ICLR 2020), §3.2 and its released code.
    """

    def __init__(self, channels: int, stride: int, options: Iterable[int], *, divisor: int) -> None:
        super().__init__(channels // divisor, stride, options, norm_pools=True)
        self.divisor = divisor
        self.bypass = OPERATIONS["max_pool_2x2"].module(channels, 2) if stride == 2 else None

    def forward(self, x: Tensor, gate: Gate, noise: Noise) -> Tensor | None:
        width = x.shape[1] // self.divisor
        out = super().forward(x[:, :width], gate, noise)
        if out is None:
            return None
        rest = x[:, width:]
        if self.bypass is not None:
            rest = self.bypass(rest)
        return join_bypass(out, rest, gate, self.divisor)
