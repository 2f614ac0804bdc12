"""The three options of a layer, each as a module and as an exact cost, and how layers follow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from nasrun.errors import UserError
from nasrun.search_space.operation import Pointwise, reduced, total
from nasrun.values import Cost, Problem

STEM = 32
"""Channels of the stem at width 1."""

STAGES = ((2, 64), (3, 128), (3, 256))
"""Layers and channels of each stage at width 1; the first layer of a stage has stride 2."""

FEATURES = 1280
"""Channels before the classifier at width 1."""


@dataclass(frozen=True)
class LayerPlan:
    """Channels and stride of a layer; size: side of its input, in pixels."""

    inputs: int
    outputs: int
    size: int
    stride: int

    @property
    def size_out(self) -> int:
        return reduced(self.size, self.stride)

    @property
    def keeps_shape(self) -> bool:
        return self.stride == 1 and self.inputs == self.outputs


@dataclass(frozen=True)
class MacroPlan:
    """stem: channels of the stem; features: channels before the classifier; size: side there."""

    stem: int
    layers: tuple[LayerPlan, ...]
    features: int
    size: int


def plan_network(problem: Problem, width: float) -> MacroPlan:
    """All channels times ``width``. Raises UserError for images too small for the three strides."""
    smallest = 2 ** len(STAGES)
    if problem.size < smallest:
        raise UserError(
            f"images of {problem.size}×{problem.size} pixels are "
            "too small for nas_bench_macro, which "
            f"halves them {len(STAGES)} times (at least {smallest}×{smallest})"
        )
    stem, *stages, features = (
        max(1, round(width * channels)) for channels in (STEM, *(c for _, c in STAGES), FEATURES)
    )
    layers: list[LayerPlan] = []
    inputs, size = stem, problem.size
    for (count, _), channels in zip(STAGES, stages, strict=True):
        for index in range(count):
            layer = LayerPlan(inputs, channels, size, 1 if index else 2)
            layers.append(layer)
            inputs, size = channels, layer.size_out
    return MacroPlan(stem, tuple(layers), features, size)


class Option(ABC):
    """One option of a layer; ``module`` and ``cost`` speak of the same network.

    residual: whether the layer's input is added to the output where both have one shape.
    """

    residual: bool

    @abstractmethod
    def module(self, layer: LayerPlan) -> nn.Module:
        """[B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)]."""

    @abstractmethod
    def cost(self, layer: LayerPlan) -> Cost:
        """What the module costs."""


@dataclass(frozen=True)
class Identity(Option):
    """The input itself; where the shape changes a 1×1 convolution and batch norm."""

    residual = False

    def module(self, layer: LayerPlan) -> nn.Module:
        if layer.keeps_shape:
            return nn.Identity()
        return nn.Sequential(
            Pointwise(layer.inputs, layer.outputs, layer.stride), nn.BatchNorm2d(layer.outputs)
        )

    def cost(self, layer: LayerPlan) -> Cost:
        if layer.keeps_shape:
            return Cost(0, 0)
        return pointwise_cost(layer.inputs, layer.outputs, layer.size_out)


@dataclass(frozen=True)
class MBConv(Option):
    """1×1 to ``expansion`` times as many channels, depthwise k×k with the stride, 1×1 back.

    Batch norm after each, ReLU after the first two.
    """

    kernel: int
    expansion: int
    residual = True

    def module(self, layer: LayerPlan) -> nn.Module:
        hidden = self.expansion * layer.inputs
        depthwise = nn.Conv2d(
            hidden,
            hidden,
            self.kernel,
            layer.stride,
            self.kernel // 2,
            groups=hidden,
            bias=False,
        )
        return nn.Sequential(
            *(Pointwise(layer.inputs, hidden), nn.BatchNorm2d(hidden), nn.ReLU()),
            *(depthwise, nn.BatchNorm2d(hidden), nn.ReLU()),
            *(Pointwise(hidden, layer.outputs), nn.BatchNorm2d(layer.outputs)),
        )

    def cost(self, layer: LayerPlan) -> Cost:
        hidden = self.expansion * layer.inputs
        weights = self.kernel**2 * hidden
        return total(
            [
                pointwise_cost(layer.inputs, hidden, layer.size),
                Cost(weights + 2 * hidden, weights * layer.size_out**2),
                pointwise_cost(hidden, layer.outputs, layer.size_out),
            ]
        )


def pointwise_cost(inputs: int, outputs: int, size: int) -> Cost:
    """A 1×1 convolution and its batch norm; size: side of the output."""
    return Cost(inputs * outputs + 2 * outputs, inputs * outputs * size**2)


OPTIONS: Mapping[str, Option] = {
    "identity": Identity(),
    "mbconv_3x3_e3": MBConv(3, 3),
    "mbconv_5x5_e6": MBConv(5, 6),
}
"""In the order of the published digits 0, 1 and 2."""
