"""Chains: networks whose layers, or other pieces, are computed one after the other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from nasrun.search_space.gates import Gate, mixed
from nasrun.search_space.noise import Noise
from nasrun.search_space.stages import reduced
from nasrun.values import MapSize

MAX_WIDTH = 16
"""Upper bound of the factor of all channels."""


class WidthScale(BaseModel):
    """The scale of a network. width: factor of all channels; 1 is the published network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: Annotated[float, Field(gt=0, le=MAX_WIDTH)]


@dataclass(frozen=True)
class LayerPlan:
    """Channels and stride of a layer; size: of its input."""

    inputs: int
    outputs: int
    size: MapSize
    stride: int

    @property
    def size_out(self) -> MapSize:
        return reduced(self.size, self.stride)

    @property
    def keeps_shape(self) -> bool:
        return self.stride == 1 and self.inputs == self.outputs


class ChoiceLayer(nn.Module):
    """Some of the options of a layer: [B, inputs, H, W] -> [B, outputs, H', W'].

    options: modules by index of the option. residual: those to whose output the input is added.
    """

    def __init__(self, options: Mapping[int, nn.Module], residual: Collection[int]) -> None:
        super().__init__()
        self.options = nn.ModuleDict({str(index): module for index, module in options.items()})
        self.residual = residual

    def forward(self, x: Tensor, gate: Gate, noise: Noise, depth: float) -> Tensor:
        def run(option: int) -> Tensor:
            out: Tensor = self.options[str(option)](x)
            return x + noise.drop_path(out, depth) if option in self.residual else out

        return mixed(gate, run)


class LoneLayer(nn.Module):
    """A layer with one option, its residual included: [B, inputs, H, W] -> [B, outputs, H', W']."""

    def __init__(self, layer: ChoiceLayer) -> None:
        super().__init__()
        self.layer, self.noise = layer, Noise()
        self.option = int(next(iter(layer.options)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x, self.option, self.noise, 1.0)
        return out


@dataclass(frozen=True)
class Piece:
    """A piece of a chain, such as the stem, the open option of a layer, or the head.

    key: names what it computes: at one place of the chains of a supernet, equal keys mean equal
    pieces.
    run: the output of the piece before (of the first piece: images [B, C, H, W]) -> its own output
    (of the last piece: logits [B, K]).
    """

    key: Hashable
    run: Callable[[Tensor], Tensor]
