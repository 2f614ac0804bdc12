"""Depthwise convolutions whose weight gradient is fast on small maps and at dilation 2.

oneDNN, which computes convolutions on the CPU, has a slow general code for weight gradients of
depthwise convolutions wherever its fast one does not fit: on maps smaller than the kernel, and at
every dilation. There it takes most of the time of a training step. Here these cases become batched
matrix products, or a convolution without dilation for which the fast code fits. Result and input
gradient are torch's own, bit by bit; the weight gradient is the same sum in another order.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Depthwise(nn.Conv2d):
    """Depthwise k×k convolution without bias: [B, C, H, W] -> [B, C, ceil(H / stride), ...].

    kernel: an odd side, pixels.
    """

    def __init__(self, channels: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            *(channels, channels, kernel, stride, padding, dilation), groups=channels, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return depthwise(x, self.weight, self.stride[0], self.dilation[0])


def depthwise(x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """Convolve each channel with its kernel, padded by half a kernel with zeros.

    x: [B, C, H, W]. weight: [C, 1, k, k] with an odd k. Returns [B, C, ceil(H / stride), ...].
    The way of the weight gradient depends on shapes alone, so a resumed run takes the same one.
    """
    if (
        torch.is_grad_enabled()
        and weight.requires_grad
        and x.is_cpu
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and gains(x.shape, weight.shape[-1], stride, dilation)
    ):
        out: Tensor = DepthwiseFunction.apply(x, weight, stride, dilation)
        return out
    return _convolve(x, weight, stride, dilation)


def gains(shape: torch.Size, kernel: int, stride: int, dilation: int) -> bool:
    """Tell whether the weight gradient here is faster than oneDNN's (measured with AVX2).

    shape: of the input, [B, C, H, W].
    """
    if dilation > 1:
        return stride == 1 or stride % dilation == 0
    # On larger maps the products of all pairs take as long as oneDNN's fast code, or longer.
    return shape[2] * shape[3] <= (kernel - 1 if stride == 1 else kernel) ** 2


class DepthwiseFunction(torch.autograd.Function):
    """``depthwise`` with the weight gradient of this module, for every shape and type."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.dilation = stride, dilation
        return _convolve(x, weight, stride, dilation)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = _torch_gradients(x, weight, gradient, ctx.stride, ctx.dilation, of_x=True)[0]
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(x, weight, gradient, ctx.stride, ctx.dilation)
        return of_x, of_weight, None, None


def weight_gradient(
    x: Tensor, weight: Tensor, gradient: Tensor, stride: int, dilation: int
) -> Tensor:
    """Sum input times output gradient over images and positions, for each tap of the kernel.

    x: [B, C, H, W]. weight: [C, 1, k, k]; its shape alone matters. gradient: of the output,
    [B, C, ceil(H / stride), ceil(W / stride)]. Returns [C, 1, k, k].
    """
    if dilation > 1 and stride % dilation == 0:  # only every dilation-th position is ever read
        x, stride, dilation = x[:, :, ::dilation, ::dilation], stride // dilation, 1
    elif dilation > 1 and stride == 1:  # positions meet only others of the same remainder
        x, gradient, dilation = _remainders(x, dilation), _remainders(gradient, dilation), 1
    if dilation == 1 and gains(x.shape, weight.shape[-1], stride, dilation):
        return _by_pairs(x, weight, gradient, stride)
    return _torch_gradients(x, weight, gradient, stride, dilation, of_x=False)[1]


def _by_pairs(x: Tensor, weight: Tensor, gradient: Tensor, stride: int) -> Tensor:
    """Multiply all pairs of positions, summed over images, and add up the pairs of each tap."""
    size, size_out, kernel = x.shape[2:], gradient.shape[2:], weight.shape[-1]
    products = torch.bmm(
        _positions_first(x).transpose(0, 1), _positions_first(gradient).permute(1, 2, 0)
    )  # [C, H W, H' W']
    taps = _taps(*size, *size_out, kernel, stride, x.dtype)
    return (products.flatten(1) @ taps).view_as(weight)


def _positions_first(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [H W, C, B] in this order in memory, which the matrix product reads best."""
    batch, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(batch, -1)
    return rows.t().contiguous().view(height * width, channels, batch)


@lru_cache(maxsize=128)
def _taps(
    height: int,
    width: int,
    height_out: int,
    width_out: int,
    kernel: int,
    stride: int,
    dtype: torch.dtype,
) -> Tensor:
    """[H W H' W', k k]: 1 where the tap joins the input's and the output's position, else 0."""

    def along(size: int, size_out: int) -> Tensor:
        inputs, outputs, taps = (torch.arange(n, device="cpu") for n in (size, size_out, kernel))
        met = outputs[None, :, None] * stride + taps - kernel // 2
        return (inputs[:, None, None] == met).to(dtype)

    both = torch.einsum("iua,jvb->ijuvab", along(height, height_out), along(width, width_out))
    return both.reshape(-1, kernel * kernel).contiguous()


def _remainders(x: Tensor, dilation: int) -> Tensor:
    """Make an image of each remainder's positions: [B, C, H, W] -> [d d B, C, H / d, W / d].

    Sides are padded to multiples of the dilation d, with zeros.
    """
    batch, channels, height, width = x.shape
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, -width % dilation, 0, -height % dilation))
    height, width = x.shape[1] // dilation, x.shape[2] // dilation
    x = x.reshape(batch, height, dilation, width, dilation, channels).permute(2, 4, 0, 1, 3, 5)
    return x.reshape(-1, height, width, channels).permute(0, 3, 1, 2)


def _convolve(x: Tensor, weight: Tensor, stride: int, dilation: int) -> Tensor:
    padding = dilation * (weight.shape[-1] // 2)
    return F.conv2d(x, weight, None, stride, padding, dilation, weight.shape[0])


def _torch_gradients(
    x: Tensor, weight: Tensor, gradient: Tensor, stride: int, dilation: int, *, of_x: bool
) -> tuple[Tensor, Tensor]:
    """Return torch's gradients of input and weight; only one is computed, the other undefined."""
    padding = dilation * (weight.shape[-1] // 2)
    of_input, of_weight, _ = torch.ops.aten.convolution_backward(
        *(gradient, x, weight, None, [stride] * 2, [padding] * 2, [dilation] * 2, False, [0, 0]),
        *(weight.shape[0], [of_x, not of_x, False]),
    )
    return of_input, of_weight
