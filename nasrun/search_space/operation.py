"""Candidate operations of cell-based spaces.

Every operation maps [B, C, H, W] to [B, C, ceil(H / stride), ceil(W / stride)].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasrun.search_space.depthwise import Depthwise


def remove_affine(module: nn.Module) -> None:
    """Remove the learned scale and shift from all batch norms of ``module``."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.affine = False
            norm.register_parameter("weight", None)
            norm.register_parameter("bias", None)


SMALL_PRODUCT_VALUES = 200_000
"""Input and output values of a 1×1 convolution up to which it trains as a matrix product."""


class Pointwise(nn.Conv2d):
    """1×1 convolution without bias; a stride is taken by slicing the input first.

    oneDNN's own strided 1×1 kernel writes out of bounds in the channels_last layout for some
    shapes (seen on the CPU with torch 2.15: 8 channels, 56×56 pixels, stride 2).
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, 1, bias=False)
        self.subsample = stride

    def forward(self, x: Tensor) -> Tensor:
        if self.subsample > 1:  # a slice of everything costs a copy on the way back
            x = x[:, :, :: self.subsample, :: self.subsample]
        return _product(x, self.weight) if self._is_small(x) else super().forward(x)

    def _is_small(self, x: Tensor) -> bool:
        """Tell whether a matrix product trains faster than oneDNN's convolution (with AVX2).

        oneDNN takes a tenth of a millisecond before it begins, three times a step. By shapes
        alone, so a resumed run takes the same way.
        """
        return (
            torch.is_grad_enabled()
            and self.weight.requires_grad
            and x.is_cpu
            and x.dtype == self.weight.dtype == torch.float32
            and x.shape[0] * x.shape[2] * x.shape[3] * (self.in_channels + self.out_channels)
            <= SMALL_PRODUCT_VALUES
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
        )


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply the channels at each position: [B, C, H, W] × [K, C, 1, 1] -> [B, K, H, W]."""
    return (x.permute(0, 2, 3, 1) @ weight.flatten(1).t()).permute(0, 3, 1, 2)


class ReluConvNorm(nn.Sequential):
    """ReLU, 1×1 convolution, batch norm: [B, inputs, H, W] -> [B, outputs, H, W]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.ReLU(), Pointwise(inputs, outputs), nn.BatchNorm2d(outputs))


class FactorizedReduce(nn.Module):
    """Halves the resolution: [B, inputs, H, W] -> [B, outputs, ceil(H / 2), ceil(W / 2)].

    Two 1×1 convolutions of stride 2, the second on the image shifted by one pixel; concatenated;
    batch norm. Source: identity at stride 2 in NAO's cells.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.even = Pointwise(inputs, outputs // 2, stride=2)
        self.odd = Pointwise(inputs, outputs - outputs // 2, stride=2)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        out: Tensor = self.norm(torch.cat([self.even(x), self.odd(shifted)], dim=1))
        return out


class ReluReduce(nn.Sequential):
    """ReLU, then ``FactorizedReduce``: [B, inputs, H, W] -> [B, outputs, H / 2, W / 2].

    Sides are rounded up. Source: calibration of cell k-2 in the released code of DARTS and NAO.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.ReLU(), FactorizedReduce(inputs, outputs))


class Operation(ABC):
    """A candidate operation; makes its module for any width and stride."""

    @abstractmethod
    def module(self, channels: int, stride: int) -> nn.Module:
        """Build the operation with new weights."""


@dataclass(frozen=True)
class SeparableConv(Operation):
    """(ReLU, depthwise k×k, pointwise 1×1, batch norm), ``times`` in a row.

    The first depthwise convolution has the stride.
    """

    kernel: int
    dilation: int = 1
    times: int = 2

    def module(self, channels: int, stride: int) -> nn.Module:
        def once(stride: int) -> list[nn.Module]:
            return [
                nn.ReLU(),
                Depthwise(channels, self.kernel, stride, self.dilation),
                Pointwise(channels, channels),
                nn.BatchNorm2d(channels),
            ]

        strides = [stride] + [1] * (self.times - 1)
        return nn.Sequential(*(layer for each in strides for layer in once(each)))


@dataclass(frozen=True)
class Conv(Operation):
    """(ReLU, convolution, batch norm) for each kernel, one after the other.

    The first kernel that is wider than 1 along an axis has the stride of this axis.

    Source: NAO-V2's released code.
    """

    kernels: tuple[tuple[int, int], ...]

    def _strides(self, stride: int) -> list[tuple[int, int]]:
        """List the strides of the kernels: both axes for one kernel, one axis each for two."""
        if len(self.kernels) == 1:
            return [(stride, stride)]
        return [(1, stride) if width > 1 else (stride, 1) for _, width in self.kernels]

    def module(self, channels: int, stride: int) -> nn.Module:
        if self.kernels == ((1, 1),):
            return nn.Sequential(
                nn.ReLU(), Pointwise(channels, channels, stride), nn.BatchNorm2d(channels)
            )
        convolutions = [
            nn.Conv2d(channels, channels, (h, w), strides, ((h - 1) // 2, (w - 1) // 2), bias=False)
            for (h, w), strides in zip(self.kernels, self._strides(stride), strict=True)
        ]
        return nn.Sequential(
            *(
                layer
                for convolution in convolutions
                for layer in (nn.ReLU(), convolution, nn.BatchNorm2d(channels))
            )
        )


class _Pool(nn.Module):
    """Pooling to ceil(size / stride); padding never counts."""

    def __init__(self, kind: str, kernel: int, stride: int) -> None:
        super().__init__()
        self.kind, self.kernel, self.stride = kind, kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel % 2:
            padding, ceil = self.kernel // 2, False
        else:  # an even window extends one pixel further right and down
            padding, ceil = (1, False) if self.stride == 1 else (0, True)
        if self.kind == "max":
            out = F.max_pool2d(x, self.kernel, self.stride, padding, ceil_mode=ceil)
        else:
            out = F.avg_pool2d(
                x, self.kernel, self.stride, padding, ceil_mode=ceil, count_include_pad=False
            )
        return out[:, :, 1:, 1:] if self.kernel % 2 == 0 and padding else out


@dataclass(frozen=True)
class Pool(Operation):
    """Average pooling (padding not counted) or max pooling; no weights."""

    kind: str
    kernel: int

    def module(self, channels: int, stride: int) -> nn.Module:
        return _Pool(self.kind, self.kernel, stride)


@dataclass(frozen=True)
class Identity(Operation):
    """The input itself; at stride 2 a FactorizedReduce."""

    def module(self, channels: int, stride: int) -> nn.Module:
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)


class _Zeros(nn.Module):
    """Zeros of the input's shape, its sides divided by the stride."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


@dataclass(frozen=True)
class Zero(Operation):
    """No connection: zeros."""

    def module(self, channels: int, stride: int) -> nn.Module:
        return _Zeros(stride)


OPERATIONS: Mapping[str, Operation] = {
    "zero": Zero(),
    "identity": Identity(),
    "sep_conv_3x3": SeparableConv(3),
    "sep_conv_5x5": SeparableConv(5),
    "sep_conv_7x7": SeparableConv(7),
    # One operation by two names: NAO's, and DARTS'.
    "dil_sep_conv_3x3": SeparableConv(3, dilation=2, times=1),
    "dil_sep_conv_5x5": SeparableConv(5, dilation=2, times=1),
    "dil_sep_conv_7x7": SeparableConv(7, dilation=2, times=1),
    "dil_conv_3x3": SeparableConv(3, dilation=2, times=1),
    "dil_conv_5x5": SeparableConv(5, dilation=2, times=1),
    "conv_1x1": Conv(((1, 1),)),
    "conv_3x3": Conv(((3, 3),)),
    "conv_1x3_3x1": Conv(((1, 3), (3, 1))),
    "conv_1x7_7x1": Conv(((1, 7), (7, 1))),
    "avg_pool_2x2": Pool("avg", 2),
    "avg_pool_3x3": Pool("avg", 3),
    "avg_pool_5x5": Pool("avg", 5),
    "max_pool_2x2": Pool("max", 2),
    "max_pool_3x3": Pool("max", 3),
    "max_pool_5x5": Pool("max", 5),
}
