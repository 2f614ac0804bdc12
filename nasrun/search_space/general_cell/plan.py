"""The stack of ``general_cell``: channels and resolutions, and the layers of its networks."""

from __future__ import annotations

from functools import lru_cache

from nasrun.search_space.general_cell.operations import NODE_OPERATIONS, NONE
from nasrun.search_space.genotype import INPUTS, Genotype
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


@lru_cache(maxsize=256)
def plan_network(
    problem: Problem, *, cells: int, channels: int, stem: StemKind, outputs: tuple[int, int]
) -> NetworkPlan:
    """Plan ``cells`` cells with reductions at a third and at two thirds, as DARTS does.

    channels: C of the first stage. outputs: nodes that a normal and a reduction cell put out.
    Raises UserError for images too small.
    """
    return stack_cells(problem, stem, channels, cells, (cells // 3, 2 * cells // 3), outputs)


def list_layers(plan: NetworkPlan, genotype: Genotype) -> list[Layer]:
    """List stem, cells and head, in the order of the network."""
    layers = [stem_layer("general_cell", plan)]
    for cell in plan.cells:
        layers += [calibration_layer("general_cell", source, cell) for source in cell.inputs]
        for node in genotype.cells[cell.reduction].nodes:
            for entry in node:
                if entry.operation != NONE:
                    outer = entry.state < INPUTS
                    size = cell.size_in if outer else cell.size_out
                    stride = 2 if cell.reduction and outer else 1
                    name = entry.operation
                    operation = NODE_OPERATIONS[name], cell.channels, size, stride
                    layers.append(operation_layer("general_cell", name, *operation))
    return [*layers, head_layer("general_cell", plan)]
