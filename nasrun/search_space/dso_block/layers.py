"""The layers of a stand-alone network of ``dso_block``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from math import prod

from torch import nn

from nasrun.search_space.dso_block.network import conv_norm_relu, head, operation, stem
from nasrun.search_space.dso_block.plan import KERNELS
from nasrun.search_space.dso_block.roles import OUTPUT
from nasrun.search_space.dso_block.wiring import OPERATION_NAMES, REDUCTIONS, Wiring
from nasrun.search_space.layer import Layer
from nasrun.search_space.operation import Pointwise
from nasrun.search_space.stages import Stage, StagePlan, pooled_classifier


def list_layers(
    plan: StagePlan, wirings: Sequence[Wiring], reductions: Sequence[Sequence[bool]]
) -> list[Layer]:
    """List stem, blocks with the reductions in between, and head, in the order of the network.

    wirings: of each block; reductions: the open operations of each.
    """
    layers = [_stem_layer(plan)]
    wiring_of_block = iter(wirings)
    for index, stage in enumerate(plan.stages):
        if index > 0:
            layers += _reduction_layers(plan.stages[index - 1], reductions[index - 1])
        for block in range(stage.depth):
            layers += _block_layers(stage, next(wiring_of_block), first=block == 0)
    return [*layers, _head_layer(plan)]


def _block_layers(stage: Stage, wiring: Wiring, *, first: bool) -> list[Layer]:
    """List operations, the 1×1 convolutions of the output, its norm, and the shortcut."""
    own = stage_layers(stage)
    layers = [own[OPERATION_NAMES[node.index % len(OPERATION_NAMES)]] for node in wiring.nodes]
    layers += [own[OUTPUT]] * sum(node.output for node in wiring.nodes)
    if wiring.nodes:
        layers.append(_norm_layer(stage))
    if first:
        layers.append(_shortcut_layer(stage))
    return layers


@lru_cache(maxsize=1024)
def stage_layers(stage: Stage) -> Mapping[str, Layer]:
    """The operations of a block of that stage and its output's convolution, by name."""
    builds: dict[str, Callable[[], nn.Module]] = {
        name: partial(operation, index, stage.channels)
        for index, name in enumerate(OPERATION_NAMES)
    }
    builds[OUTPUT] = partial(Pointwise, stage.channels, stage.channels)
    shape = stage.size.shape(stage.channels)
    return {
        name: Layer(f"dso_block/{name} {stage.channels} {stage.size}", shape, build)
        for name, build in builds.items()
    }


@lru_cache(maxsize=1024)
def _norm_layer(stage: Stage) -> Layer:
    """Return batch norm and ReLU of a block's output."""

    def build() -> nn.Module:
        return nn.Sequential(nn.BatchNorm2d(stage.channels), nn.ReLU())

    name = f"dso_block/norm_relu {stage.channels} {stage.size}"
    return Layer(name, stage.size.shape(stage.channels), build)


@lru_cache(maxsize=1024)
def _shortcut_layer(stage: Stage) -> Layer:
    return Layer(
        f"dso_block/shortcut {stage.channels} {stage.size}",
        stage.size.shape(stage.channels),
        partial(conv_norm_relu, stage.channels, stage.channels, 1),
    )


def _reduction_layers(before: Stage, opened: Sequence[bool]) -> list[Layer]:
    """List the open convolutions of a reduction; taking every second pixel is no layer."""
    channels, size = before.channels, before.size
    return [
        Layer(
            f"dso_block/reduction_{name} {channels}-{2 * channels} {size}",
            size.shape(channels),
            partial(conv_norm_relu, channels, 2 * channels, KERNELS[name], 2),
        )
        for name, on in zip(REDUCTIONS, opened, strict=True)
        if on
    ]


def _stem_layer(plan: StagePlan) -> Layer:
    problem, channels = plan.problem, plan.stages[0].channels
    return Layer(
        f"dso_block/stem {problem.channels}-{channels} {problem.size} s{prod(plan.strides)}",
        problem.size.shape(problem.channels),
        partial(stem, plan),
    )


def _head_layer(plan: StagePlan) -> Layer:
    channels, size, classes = plan.stages[-1].channels, plan.stages[-1].size, plan.problem.classes

    def build() -> nn.Module:
        return pooled_classifier(channels, classes, *head(channels))

    return Layer(f"dso_block/head {channels}-{classes} {size}", size.shape(channels), build)
