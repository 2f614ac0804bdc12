"""The three options of a layer as modules, and the channels and strides of the chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from nasrun.search_space.chain import LayerPlan
from nasrun.search_space.depthwise import Depthwise
from nasrun.search_space.operation import Pointwise
from nasrun.search_space.stages import require_size
from nasrun.values import MapSize, Problem

STEM_CHANNELS = 32
"""Channels of the stem at width 1."""

STAGE_WIDTHS = ((2, 64), (3, 128), (3, 256))
"""Layers and channels of each stage at width 1; the first layer of a stage has stride 2."""

FEATURE_CHANNELS = 1280
"""Channels before the classifier at width 1."""


@dataclass(frozen=True)
class MacroPlan:
    """The channels and sides of the whole chain.

    stem: channels of the stem.
    features: channels before the classifier. size: of the feature maps there.
    """

    stem: int
    layers: tuple[LayerPlan, ...]
    features: int
    size: MapSize


def plan_network(problem: Problem, width: float) -> MacroPlan:
    """Multiply all channels by ``width``. Raises UserError for images too small for the strides."""
    require_size(problem, "nas_bench_macro", len(STAGE_WIDTHS))
    stem, *stages, features = (
        max(1, round(width * channels))
        for channels in (STEM_CHANNELS, *(c for _, c in STAGE_WIDTHS), FEATURE_CHANNELS)
    )
    layers: list[LayerPlan] = []
    inputs, size = stem, problem.size
    for (count, _), channels in zip(STAGE_WIDTHS, stages, strict=True):
        for index in range(count):
            layer = LayerPlan(inputs, channels, size, 1 if index else 2)
            layers.append(layer)
            inputs, size = channels, layer.size_out
    return MacroPlan(stem, tuple(layers), features, size)


@dataclass(frozen=True)
class MBConv:
    """1×1 to ``expansion`` times as many channels, depthwise k×k with the stride, 1×1 back.

    Batch norm after each, ReLU after the first two.
    """

    kernel: int
    expansion: int

    def module(self, layer: LayerPlan) -> nn.Module:
        hidden = self.expansion * layer.inputs
        depthwise = Depthwise(hidden, self.kernel, layer.stride)
        return nn.Sequential(
            *(Pointwise(layer.inputs, hidden), nn.BatchNorm2d(hidden), nn.ReLU(inplace=True)),
            *(depthwise, nn.BatchNorm2d(hidden), nn.ReLU(inplace=True)),
            *(Pointwise(hidden, layer.outputs), nn.BatchNorm2d(layer.outputs)),
        )


LAYER_OPTIONS: Mapping[str, MBConv | None] = {
    "identity": None,
    "mbconv_3x3_e3": MBConv(3, 3),
    "mbconv_5x5_e6": MBConv(5, 6),
}
"""The options in the order of the published digits 0, 1 and 2; None is the identity."""


def build_option(option: MBConv | None, layer: LayerPlan) -> nn.Module:
    """Build an option, without residual; an identity that changes the shape is a convolution."""
    if option is not None:
        return option.module(layer)
    if layer.keeps_shape:
        return nn.Identity()
    return nn.Sequential(
        Pointwise(layer.inputs, layer.outputs, layer.stride), nn.BatchNorm2d(layer.outputs)
    )
