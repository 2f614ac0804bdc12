"""The stack of ``darts_cell``: channels and resolutions, and the layers of its networks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

from nasrun.search_space.darts_cell.operations import (
    EDGE_OPERATIONS,
    EVERY_NAME,
    NONE,
)
from nasrun.search_space.darts_cell.wiring import edges_of
from nasrun.search_space.layer import Layer
from nasrun.search_space.operation import ReluConvNorm, ReluReduce
from nasrun.search_space.stacked_cells import (
    CellPlan,
    FeatureMap,
    NetworkPlan,
    StemKind,
    head_layer,
    stack_cells,
    stem_layer,
)
from nasrun.values import MapSize, Problem


@lru_cache(maxsize=64)
def plan_network(
    problem: Problem, *, cells: int, channels: int, stem: StemKind, nodes: int
) -> NetworkPlan:
    """Plan ``cells`` cells with reductions at a third and at two thirds.

    channels: C of the first stage; nodes: nodes of a cell, which are concatenated to its output.
    Source: the released code of DARTS. Raises UserError for images too small.
    """
    return stack_cells(problem, stem, channels, cells, (cells // 3, 2 * cells // 3), (nodes, nodes))


def list_layers(plan: NetworkPlan, choices: Sequence[int], nodes: int) -> list[Layer]:
    """List stem, cells and head, in the order of the network."""
    layers = [stem_layer("darts_cell", plan)]
    half = len(choices) // 2
    of_kind = choices[:half], choices[half:]
    edges = edges_of(nodes)
    for cell in plan.cells:
        layers += [_calibration(source, cell) for source in cell.inputs]
        for (_, state), choice in zip(edges, of_kind[cell.reduction], strict=True):
            if choice != NONE:
                size = cell.size_in if state < 2 else cell.size_out
                stride = 2 if cell.reduction and state < 2 else 1
                layers.append(_operation(EVERY_NAME[choice], cell.channels, size, stride))
    return [*layers, head_layer("darts_cell", plan)]


# A network has some hundred layers, most of them equal, and a search asks for thousands of
# networks, so each layer is made once.


@lru_cache(maxsize=4096)
def _calibration(source: FeatureMap, cell: CellPlan) -> Layer:
    halves = source.size != cell.size_in
    kind, build = ("reduce", ReluReduce) if halves else ("relu_conv_1x1", ReluConvNorm)
    return Layer(
        f"darts_cell/{kind} {source.channels}-{cell.channels} {source.size}",
        source.size.shape(source.channels),
        partial(build, source.channels, cell.channels),
    )


@lru_cache(maxsize=4096)
def _operation(name: str, channels: int, size: MapSize, stride: int) -> Layer:
    return Layer(
        f"darts_cell/{name} {channels} {size} s{stride}",
        size.shape(channels),
        partial(EDGE_OPERATIONS[name].module, channels, stride),
    )
