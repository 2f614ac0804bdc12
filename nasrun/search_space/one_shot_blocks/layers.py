"""The layers of a stand-alone network of ``one_shot_blocks``."""

from __future__ import annotations

from functools import lru_cache, partial
from math import prod

from torch import nn

from nasrun.search_space.layer import Layer
from nasrun.search_space.one_shot_blocks.network import reduction, stem
from nasrun.search_space.one_shot_blocks.operations import (
    BLOCK_OPERATIONS,
    OPERATION_NAMES,
    norm_relu,
)
from nasrun.search_space.one_shot_blocks.wiring import Wiring, needs_of
from nasrun.search_space.operation import Pointwise
from nasrun.search_space.stages import Stage, StagePlan, pooled_classifier


def list_layers(plan: StagePlan, wiring: Wiring) -> list[Layer]:
    """List stem, the cells that are computed with the reductions in between, and head."""
    layers = [_stem_layer(plan)]
    needs = needs_of(wiring, plan.depth)
    for index, stage in enumerate(plan.stages):
        here = needs[index * stage.depth : (index + 1) * stage.depth]
        if index > 0:
            count = here[0].older + here[0].newer
            layers += [_reduction_layer(plan.stages[index - 1])] * count
        # all cells of a stage are equal, so they share a list
        layers += _cell_layers(stage, wiring) * sum(need.cell for need in here)
    return [*layers, _head_layer(plan)]


def _cell_layers(stage: Stage, wiring: Wiring) -> list[Layer]:
    """List a norm for each state that is read, 1×1 convolutions, and the open operations.

    Every open input has a 1×1 convolution, and so has the output of every block.
    """
    layers = [_norm_layer(stage)] * len(wiring.states)
    for block in wiring.blocks:
        layers += [_pointwise_layer(stage)] * (len(block.inputs) + block.on)
        layers += [_operation_layer(OPERATION_NAMES[index], stage) for index in block.operations]
    return layers


# A network has some hundred layers, most of them equal, so each layer is made once.


@lru_cache(maxsize=256)
def _stem_layer(plan: StagePlan) -> Layer:
    problem, channels = plan.problem, plan.stages[0].channels
    sizes = f"{problem.channels}-{channels} {problem.size} s{prod(plan.strides)}"
    shape = problem.size.shape(problem.channels)
    return Layer(f"one_shot_blocks/stem {sizes}", shape, partial(stem, plan))


@lru_cache(maxsize=256)
def _norm_layer(stage: Stage) -> Layer:
    def build() -> nn.Module:
        return nn.Sequential(*norm_relu(stage.channels))

    name = f"one_shot_blocks/norm_relu {stage.channels} {stage.size}"
    return Layer(name, stage.size.shape(stage.channels), build)


@lru_cache(maxsize=256)
def _pointwise_layer(stage: Stage) -> Layer:
    return Layer(
        f"one_shot_blocks/conv_1x1 {stage.channels} {stage.size}",
        stage.size.shape(stage.channels),
        partial(Pointwise, stage.channels, stage.channels),
    )


@lru_cache(maxsize=1024)
def _operation_layer(name: str, stage: Stage) -> Layer:
    return Layer(
        f"one_shot_blocks/{name} {stage.channels} {stage.size}",
        stage.size.shape(stage.channels),
        partial(BLOCK_OPERATIONS[name].module, stage.channels, 1),
    )


@lru_cache(maxsize=256)
def _reduction_layer(stage: Stage) -> Layer:
    """Return the reduction of one state after the stage."""
    return Layer(
        f"one_shot_blocks/reduction {stage.channels}-{2 * stage.channels} {stage.size}",
        stage.size.shape(stage.channels),
        partial(reduction, stage.channels),
    )


@lru_cache(maxsize=256)
def _head_layer(plan: StagePlan) -> Layer:
    channels, size, classes = plan.stages[-1].channels, plan.stages[-1].size, plan.problem.classes

    def build() -> nn.Module:
        return pooled_classifier(channels, classes, *norm_relu(channels))

    name = f"one_shot_blocks/head {channels}-{classes} {size}"
    return Layer(name, size.shape(channels), build)
