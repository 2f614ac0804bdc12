"""The four operations of a block: lists of layers that are read as modules and as exact costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from torch import nn

from nasrun.search_space.operation import Pointwise, reduced, total
from nasrun.search_space.spos.plan import BlockPlan
from nasrun.values import Cost


@dataclass(frozen=True)
class Layer:
    """A convolution without bias, its batch norm, and a ReLU or none.

    kernel: 1 is a pointwise convolution, any other a depthwise one; size: side of the input.
    """

    inputs: int
    outputs: int
    kernel: int
    stride: int
    size: int
    relu: bool

    @property
    def weights(self) -> int:
        """Of the convolution."""
        return self.outputs * (self.inputs if self.kernel == 1 else self.kernel**2)

    def convolution(self) -> nn.Conv2d:
        if self.kernel == 1:
            return Pointwise(self.inputs, self.outputs, self.stride)
        return nn.Conv2d(
            self.inputs,
            self.outputs,
            self.kernel,
            self.stride,
            self.kernel // 2,
            groups=self.inputs,
            bias=False,
        )

    def cost(self) -> Cost:
        size = reduced(self.size, self.stride)
        return Cost(self.weights + 2 * self.outputs, self.weights * size**2)


class ConvNorm(nn.Sequential):
    """A layer as a module: [B, inputs, H, W] -> [B, outputs, ceil(H / stride), ...]."""

    def __init__(self, layer: Layer) -> None:
        relu = [nn.ReLU()] if layer.relu else []
        super().__init__(layer.convolution(), nn.BatchNorm2d(layer.outputs), *relu)


def _shuffle(kernel: int) -> Callable[[BlockPlan, int], list[Layer]]:
    """1×1 to ``mid`` channels, depthwise k×k with the stride, 1×1."""

    def layers(block: BlockPlan, mid: int) -> list[Layer]:
        size = block.size_out
        return [
            Layer(block.branch_inputs, mid, 1, 1, block.size, relu=True),
            Layer(mid, mid, kernel, block.stride, block.size, relu=False),
            Layer(mid, block.branch_outputs, 1, 1, size, relu=True),
        ]

    return layers


def _xception(block: BlockPlan, mid: int) -> list[Layer]:
    """Depthwise 3×3, the first with the stride, and 1×1, three times."""
    inputs, size = block.branch_inputs, block.size_out
    return [
        Layer(inputs, inputs, 3, block.stride, block.size, relu=False),
        Layer(inputs, mid, 1, 1, size, relu=True),
        Layer(mid, mid, 3, 1, size, relu=False),
        Layer(mid, mid, 1, 1, size, relu=True),
        Layer(mid, mid, 3, 1, size, relu=False),
        Layer(mid, block.branch_outputs, 1, 1, size, relu=True),
    ]


@dataclass(frozen=True)
class Operation:
    """main: the layers of the main branch with ``mid`` channels inside.

    kernel: of the depthwise convolution in the other branch, where that has one.
    """

    name: str
    kernel: int
    main: Callable[[BlockPlan, int], list[Layer]]

    def projection(self, block: BlockPlan) -> list[Layer]:
        """The other branch: at stride 1 the channels as they are, else depthwise k×k and 1×1."""
        if block.stride == 1:
            return []
        channels = block.branch_inputs
        return [
            Layer(channels, channels, self.kernel, block.stride, block.size, relu=False),
            Layer(channels, channels, 1, 1, block.size_out, relu=True),
        ]


OPERATIONS = (
    Operation("shuffle_3x3", 3, _shuffle(3)),
    Operation("shuffle_5x5", 5, _shuffle(5)),
    Operation("shuffle_7x7", 7, _shuffle(7)),
    Operation("xception", 3, _xception),
)
"""In the order of the published digits 0 to 3."""

NAMES = tuple(operation.name for operation in OPERATIONS)


@dataclass(frozen=True)
class Choice:
    """What is chosen in a block. op: index of the operation; mid: channels inside it."""

    op: int
    mid: int


@lru_cache(maxsize=4096)  # a search asks for some hundreds of blocks again and again
def block_cost(block: BlockPlan, choice: Choice) -> Cost:
    """Both branches, counted from the layers that ``network.Block`` is made of."""
    operation = OPERATIONS[choice.op]
    layers = [*operation.main(block, choice.mid), *operation.projection(block)]
    return total(layer.cost() for layer in layers)
