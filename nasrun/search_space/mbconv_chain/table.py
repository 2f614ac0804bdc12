"""The table of a chain's stages, and the channels, sides and strides that follow from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from nasrun.errors import UserError
from nasrun.limits import Width
from nasrun.search_space.chain import LayerPlan
from nasrun.search_space.stages import reduced, require_size
from nasrun.values import MapSize, Problem

IDENTITY = "identity"
"""The name of the option that passes the input on."""

_OPERATION = re.compile(r"k([357])_e([1-9])(?:_g([2-8]))?(_se)?")

OperationName = Annotated[str, Field(pattern=f"^{_OPERATION.pattern}$")]
"""Kernel and expansion, and where wanted groups and squeeze-excite: ``k5_e6``, ``k3_e1_g2``."""

OperationNames = Annotated[list[OperationName], Field(min_length=1, max_length=32)]

Activation = Literal["relu", "relu6", "hard_swish"]

SqueezeKind = Literal["mnasnet", "mobilenet_v3"]
"""``mnasnet``: a quarter of the block's input channels inside, then a sigmoid. ``mobilenet_v3``: a
quarter of the hidden channels, a multiple of 8, then a hard sigmoid."""

StemKind = Literal["imagenet", "cifar"]
"""``imagenet``: the strides of the table. ``cifar``: for images of about 32 pixels, stride 1 in the
stem and in the first stage of stride 2."""


Share = Literal["none", "kernels"]
"""``none``: each option has weights of its own. ``kernels``: the options of a layer are parts of
one super-kernel."""


class Stage(BaseModel):
    """A row of the table: layers of equal output channels, the first of which has the stride.

    layers: the largest number of layers.
    least: the smallest; None: as many. From this layer on a layer may be the identity, or the
    number of layers is a decision (``decide``). 0: the first layer too, as a 1×1 convolution where
    it changes the shape.
    operations: the options of its layers; None: those of the whole chain.
    squeeze_excite: whether all of them have squeeze-excite, besides those whose name ends in _se.
    activation: None: that of the whole chain.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: Width
    layers: Annotated[int, Field(ge=1, le=64)]
    stride: Literal[1, 2]
    least: NonNegativeInt | None = None
    operations: OperationNames | None = None
    squeeze_excite: bool = False
    activation: Activation | None = None

    @property
    def shortest(self) -> int:
        """The smallest number of layers."""
        return self.layers if self.least is None else min(self.least, self.layers)


@dataclass(frozen=True)
class Operation:
    """An inverted residual, by its name.

    groups: of both 1×1 convolutions, whose channels are shuffled in between.
    """

    name: str
    kernel: int
    expansion: int
    groups: int
    squeeze_excite: bool

    @staticmethod
    def named(name: str) -> Operation:
        """Read a name that matches ``OperationName``."""
        found = _OPERATION.fullmatch(name)
        if found is None:
            raise UserError(f"operation {name!r} has no name like k5_e6, k3_e1_g2 or k3_e6_se")
        kernel, expansion, groups, squeeze = found.groups()
        return Operation(name, int(kernel), int(expansion), int(groups or 1), squeeze is not None)

    @property
    def words(self) -> str:
        """The operation for people: ``mbconv 5×5, expansion 6``."""
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        squeeze = ", squeeze-excite" if self.squeeze_excite else ""
        return f"mbconv {self.kernel}×{self.kernel}, expansion {self.expansion}{groups}{squeeze}"


Option = Operation | None
"""An option of a layer; None is the identity."""


def name_of(option: Option) -> str:
    """Return the name of an option of a layer."""
    return IDENTITY if option is None else option.name


@dataclass(frozen=True)
class Style:
    """The rules that hold for all blocks of a chain.

    expand_always: whether blocks of expansion 1 have a first 1×1 convolution too (FBNet).
    """

    squeeze: SqueezeKind
    expand_always: bool


@dataclass(frozen=True)
class MbconvPlan(LayerPlan):
    """Channels, stride and style of a layer; size: of its input."""

    activation: Activation
    squeeze_excite: bool
    style: Style

    def squeezed(self, operation: Operation) -> int | None:
        """Return the channels inside squeeze-excite; None: the operation has none here."""
        if not (self.squeeze_excite or operation.squeeze_excite):
            return None
        if self.style.squeeze == "mnasnet":
            return max(1, self.inputs // 4)
        return divisible(self.inputs * operation.expansion // 4, 8)


@dataclass(frozen=True)
class ChainPlan:
    """The channels and sides of a whole chain.

    stem: channels of the stem. features: channels before the pooling; size: of these maps.
    mix: channels of a further linear layer behind the pooling; None: there is none.
    """

    problem: Problem
    stem: int
    stem_stride: int
    activation: Activation
    layers: tuple[MbconvPlan, ...]
    features: int
    mix: int | None
    size: MapSize


@dataclass(frozen=True)
class Table:
    """The table of a chain, and what else its plan depends on.

    name: of the space, for messages. divisor: all channels are multiples of it.
    """

    name: str
    stem: StemKind
    stem_channels: int
    stages: tuple[Stage, ...]
    features: int
    mix: int | None
    activation: Activation
    divisor: int
    style: Style

    @property
    def strides(self) -> list[int]:
        """The strides of the stem and of each stage."""
        strides: list[int] = [2, *(stage.stride for stage in self.stages)]
        if self.stem == "cifar":
            for place in [index for index, stride in enumerate(strides) if stride == 2][:2]:
                strides[place] = 1
        return strides

    def plan(self, problem: Problem, width: float) -> ChainPlan:
        """Multiply all channels by ``width``. Raises UserError for images that are too small."""
        stem_stride, *strides = self.strides
        require_size(problem, f"{self.name} with stem={self.stem}", self.strides.count(2))

        def scaled(channels: int) -> int:
            return divisible(width * channels, self.divisor)

        layers: list[MbconvPlan] = []
        stem = inputs = scaled(self.stem_channels)
        size = reduced(problem.size, stem_stride)
        for stage, stride in zip(self.stages, strides, strict=True):
            for place in range(stage.layers):
                layer = MbconvPlan(
                    inputs,
                    scaled(stage.channels),
                    size,
                    1 if place else stride,
                    stage.activation or self.activation,
                    stage.squeeze_excite,
                    self.style,
                )
                layers.append(layer)
                inputs, size = layer.outputs, layer.size_out
        return ChainPlan(
            problem,
            stem,
            stem_stride,
            self.activation,
            tuple(layers),
            scaled(self.features),
            None if self.mix is None else scaled(self.mix),
            size,
        )


def divisible(channels: float, divisor: int) -> int:
    """Round to a multiple of ``divisor`` that is at most a tenth smaller (MobileNet's code)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
