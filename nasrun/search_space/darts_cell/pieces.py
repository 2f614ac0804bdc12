"""What a stand-alone network of ``darts_cell`` computes, each operation by itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

from nasrun.search_space.base import Piece
from nasrun.search_space.darts_cell.operations import NAMES, NONE, OPTIONS, ReluReduce
from nasrun.search_space.darts_cell.wiring import edges_of
from nasrun.search_space.operation import ReluConvNorm
from nasrun.search_space.stacked_cells import (
    CellPlan,
    FeatureMap,
    NetworkPlan,
    StemKind,
    head_piece,
    stem_piece,
)
from nasrun.values import Problem


def list_pieces(
    plan: NetworkPlan, problem: Problem, choices: Sequence[int], nodes: int, *, stem: StemKind
) -> list[Piece]:
    """Stem, cells and head, in the order of the network; arguments as ``DartsNetwork`` has them."""
    found = [stem_piece("darts_cell", plan, problem, stem)]
    half = len(choices) // 2
    of_kind = choices[:half], choices[half:]
    edges = edges_of(nodes)
    for cell in plan.cells:
        found += [_calibration(source, cell) for source in cell.inputs]
        for (_, state), choice in zip(edges, of_kind[cell.reduction], strict=True):
            if choice != NONE:
                size = cell.size_in if state < 2 else cell.size_out
                stride = 2 if cell.reduction and state < 2 else 1
                found.append(_operation(NAMES[choice], cell.channels, size, stride))
    return [*found, head_piece("darts_cell", plan.output, problem)]


# A network has some hundred pieces, most of them alike, and a search asks for thousands of
# networks: each piece is made once.


@lru_cache(maxsize=4096)
def _calibration(source: FeatureMap, cell: CellPlan) -> Piece:
    halves = source.size != cell.size_in
    kind, build = ("reduce", ReluReduce) if halves else ("relu_conv_1x1", ReluConvNorm)
    return Piece(
        f"darts_cell/{kind} {source.channels}-{cell.channels} {source.size}",
        (source.channels, source.size, source.size),
        partial(build, source.channels, cell.channels),
    )


@lru_cache(maxsize=4096)
def _operation(name: str, channels: int, size: int, stride: int) -> Piece:
    return Piece(
        f"darts_cell/{name} {channels} {size} s{stride}",
        (channels, size, size),
        partial(OPTIONS[name].module, channels, stride),
    )
