"""What a stand-alone network of ``nao_cell`` computes, each operation by itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

from nasrun.search_space.base import Piece
from nasrun.search_space.nao_cell.cell import Node, unused_states
from nasrun.search_space.operation import OPERATIONS, FactorizedReduce, ReluConvNorm
from nasrun.search_space.stacked_cells import (
    CellPlan,
    NetworkPlan,
    StemKind,
    head_piece,
    stem_piece,
)
from nasrun.values import Problem


def list_pieces(
    plan: NetworkPlan,
    problem: Problem,
    cells: tuple[Sequence[Node], Sequence[Node]],
    operations: Sequence[str],
    *,
    stem: StemKind,
) -> list[Piece]:
    """Stem, cells and head, in the order of the network; arguments as ``NaoNetwork`` has them."""
    found = [stem_piece("nao_cell", plan, problem, stem)]
    to_halve = [state for state in unused_states(cells[True]) if state < 2]
    for cell in plan.cells:
        found += _calibrations(cell)
        found += [
            _operation(
                operations[branch.op],
                cell.channels,
                cell.size_in if branch.input < 2 else cell.size_out,
                2 if cell.reduction and branch.input < 2 else 1,
            )
            for node in cells[cell.reduction]
            for branch in node
        ]
        if cell.reduction:
            found += [_factorized_reduce(cell.channels, cell.channels, cell.size_in)] * len(
                to_halve
            )
    return [*found, head_piece("nao_cell", plan.output, problem)]


def _calibrations(plan: CellPlan) -> list[Piece]:
    """As ``cell.calibrations`` has them; an input that fits as it is needs no operation."""
    return [
        _factorized_reduce(source.channels, plan.channels, source.size)
        if source.size != plan.size_in
        else _relu_conv_norm(source.channels, plan.channels, source.size)
        for source in plan.inputs
        if source.size != plan.size_in or source.channels != plan.channels
    ]


# A network has some hundred pieces, most of them alike, and a search asks for thousands of
# networks: each piece is made once.


@lru_cache(maxsize=4096)
def _operation(name: str, channels: int, size: int, stride: int) -> Piece:
    return Piece(
        f"nao_cell/{name} {channels} {size} s{stride}",
        (channels, size, size),
        partial(OPERATIONS[name].module, channels, stride),
    )


@lru_cache(maxsize=4096)
def _factorized_reduce(inputs: int, outputs: int, size: int) -> Piece:
    return Piece(
        f"nao_cell/factorized_reduce {inputs}-{outputs} {size}",
        (inputs, size, size),
        partial(FactorizedReduce, inputs, outputs),
    )


@lru_cache(maxsize=4096)
def _relu_conv_norm(inputs: int, outputs: int, size: int) -> Piece:
    return Piece(
        f"nao_cell/relu_conv_1x1 {inputs}-{outputs} {size}",
        (inputs, size, size),
        partial(ReluConvNorm, inputs, outputs),
    )
