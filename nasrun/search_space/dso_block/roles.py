"""What each edge of ``dso_block`` pays for: the operation that it feeds, the output's 1×1
convolution, or a reduction; and those operations one by one, for tables of latency."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from nasrun.search_space.base import Piece
from nasrun.search_space.dso_block.network import operation
from nasrun.search_space.dso_block.plan import Stage
from nasrun.search_space.dso_block.wiring import NAMES, Edges
from nasrun.search_space.operation import Pointwise

OUTPUT = "output"


@dataclass(frozen=True)
class Role:
    """block: the index of the block's decisions among all distinct ones, None of a reduction;
    operation: the number of the operation that the edge feeds, None of an output; name: of that
    kind of operation, or ``output``, or ``reduction``."""

    block: int | None
    operation: int | None
    name: str


def block_roles(block: int, edges: Edges) -> Iterator[Role]:
    """Those of a block's decisions, in order."""
    for index in edges.operations:
        for _ in edges.inputs(index):
            yield Role(block, index, NAMES[index % len(NAMES)])
    for _ in edges.operations:
        yield Role(block, None, OUTPUT)


def stage_pieces(stage: Stage) -> dict[str, Piece]:
    """The operations of a block of that stage and its output's convolution, by name."""
    channels, size = stage.channels, stage.size
    shape = (channels, size, size)

    def piece(name: str, index: int | None) -> Piece:
        def build() -> nn.Module:
            if index is None:
                return Pointwise(channels, channels)
            return operation(index, channels, fixed_scale=False)

        return Piece(f"dso_block/{name} {channels} {size}", shape, build)

    pieces = {name: piece(name, index) for index, name in enumerate(NAMES)}
    return {**pieces, OUTPUT: piece(OUTPUT, None)}
