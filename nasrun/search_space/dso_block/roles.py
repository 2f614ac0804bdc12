"""The roles of the edges of ``dso_block``.

An edge feeds an operation, the output by a 1×1 convolution, or a reduction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nasrun.search_space.dso_block.wiring import OPERATION_NAMES, Edges

OUTPUT = "output"


@dataclass(frozen=True)
class Role:
    """The role of an edge.

    block: index of the block's set of decisions; None: an edge of a reduction.
    operation: index of the operation that the edge feeds; None: an edge to the output.
    name: kind of this operation, or ``output``, or ``reduction``.
    """

    block: int | None
    operation: int | None
    name: str


def block_roles(block: int, edges: Edges) -> Iterator[Role]:
    """Yield the roles of a block's decisions, in order."""
    for index in edges.operations:
        for _ in edges.inputs(index):
            yield Role(block, index, OPERATION_NAMES[index % len(OPERATION_NAMES)])
    for _ in edges.operations:
        yield Role(block, None, OUTPUT)
