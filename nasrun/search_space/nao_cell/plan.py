"""The stack of ``nao_cell``: channels and resolutions, and the layers of its networks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

from nasrun.search_space.layer import Layer
from nasrun.search_space.nao_cell.cell import Node, unused_states
from nasrun.search_space.operation import OPERATIONS, FactorizedReduce, ReluConvNorm, ReluReduce
from nasrun.search_space.stacked_cells import (
    CellPlan,
    NetworkPlan,
    StemKind,
    head_layer,
    stack_cells,
    stem_layer,
)
from nasrun.values import MapSize, Problem


@lru_cache(maxsize=256)
def plan_network(
    problem: Problem,
    *,
    layers: int,
    channels: int,
    stem: StemKind,
    concat: tuple[int, int],
    calibrate_always: bool = False,
) -> NetworkPlan:
    """Plan 3·layers + 2 cells with reductions at layers and 2·layers + 1.

    layers: N, normal cells of a stage; channels: C of the first stage;
    concat: number of states in the output of a normal and of a reduction cell.
    calibrate_always: whether inputs of the right shape pass a 1×1 convolution, too (DARTS' code).
    Source: the search network of NAO-V2's released code. Raises UserError for images too small.
    """
    reductions = (layers, 2 * layers + 1)
    return stack_cells(
        problem,
        stem,
        channels,
        3 * layers + 2,
        reductions,
        concat,
        margin=2,
        calibrate_always=calibrate_always,
    )


def list_layers(
    plan: NetworkPlan, cells: tuple[Sequence[Node], Sequence[Node]], operations: Sequence[str]
) -> list[Layer]:
    """List stem, cells and head, in the order of the network.

    cells: nodes of the normal and of the reduction cell.
    """
    layers = [stem_layer("nao_cell", plan)]
    halved = sum(state < 2 for state in unused_states(cells[True]))
    branches = [
        [(operations[branch.op], branch.input) for node in nodes for branch in node]
        for nodes in cells
    ]
    for cell in plan.cells:
        layers += calibration_layers(cell)
        layers += [branch_layer(cell, name, source) for name, source in branches[cell.reduction]]
        if cell.reduction:
            layers += [reduce_layer(cell)] * halved
    return [*layers, head_layer("nao_cell", plan)]


def calibration_layers(plan: CellPlan) -> list[Layer]:
    """List the layers of ``cell.calibrations``; an input of the right shape needs none."""
    return [
        _relu_reduce(source.channels, plan.channels, source.size)
        if source.size != plan.size_in
        else _relu_conv_norm(source.channels, plan.channels, source.size)
        for source in plan.inputs
        if source.size != plan.size_in or source.channels != plan.channels or plan.calibrate_always
    ]


def branch_layer(cell: CellPlan, name: str, source: int) -> Layer:
    """Return the layer of a branch that reads ``source``; 0 and 1 are the inputs of the cell."""
    if source < 2:
        return _operation(name, cell.channels, cell.size_in, 2 if cell.reduction else 1)
    return _operation(name, cell.channels, cell.size_out, 1)


def reduce_layer(cell: CellPlan) -> Layer:
    """Return the layer that halves an input which is part of a reduction cell's output."""
    return _factorized_reduce(cell.channels, cell.size_in)


# A network has some hundred layers, most of them equal, and a search asks for thousands of
# networks, so each layer is made once.


@lru_cache(maxsize=4096)
def _operation(name: str, channels: int, size: MapSize, stride: int) -> Layer:
    return Layer(
        f"nao_cell/{name} {channels} {size} s{stride}",
        size.shape(channels),
        partial(OPERATIONS[name].module, channels, stride),
    )


@lru_cache(maxsize=4096)
def _factorized_reduce(channels: int, size: MapSize) -> Layer:
    return Layer(
        f"nao_cell/factorized_reduce {channels}-{channels} {size}",
        size.shape(channels),
        partial(FactorizedReduce, channels, channels),
    )


@lru_cache(maxsize=4096)
def _relu_reduce(inputs: int, outputs: int, size: MapSize) -> Layer:
    return Layer(
        f"nao_cell/relu_reduce {inputs}-{outputs} {size}",
        size.shape(inputs),
        partial(ReluReduce, inputs, outputs),
    )


@lru_cache(maxsize=4096)
def _relu_conv_norm(inputs: int, outputs: int, size: MapSize) -> Layer:
    return Layer(
        f"nao_cell/relu_conv_1x1 {inputs}-{outputs} {size}",
        size.shape(inputs),
        partial(ReluConvNorm, inputs, outputs),
    )
