"""The stack of ``darts_cell``: channels and resolutions, and the layers of its networks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from nasrun.search_space.darts_cell.operations import (
    EDGE_OPERATIONS,
    EVERY_NAME,
    NONE,
)
from nasrun.search_space.darts_cell.wiring import edges_of
from nasrun.search_space.layer import Layer
from nasrun.search_space.stacked_cells import (
    NetworkPlan,
    StemKind,
    calibration_layer,
    head_layer,
    operation_layer,
    stack_cells,
    stem_layer,
)
from nasrun.values import Problem


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
        layers += [calibration_layer("darts_cell", source, cell) for source in cell.inputs]
        for (_, state), choice in zip(edges, of_kind[cell.reduction], strict=True):
            if choice != NONE:
                size = cell.size_in if state < 2 else cell.size_out
                stride = 2 if cell.reduction and state < 2 else 1
                name = EVERY_NAME[choice]
                operation = EDGE_OPERATIONS[name], cell.channels, size, stride
                layers.append(operation_layer("darts_cell", name, *operation))
    return [*layers, head_layer("darts_cell", plan)]
