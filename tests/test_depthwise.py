"""Depthwise and 1×1 convolutions equal torch's; their weight gradient is as exact as torch's."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasrun.search_space import depthwise as module
from nasrun.search_space import operation
from nasrun.search_space.depthwise import Depthwise, DepthwiseFunction, gains
from nasrun.search_space.operation import Pointwise

SHAPES = (
    *((1, 1, 1), (3, 2, 2), (1, 3, 3), (3, 4, 4), (1, 5, 3), (3, 2, 7)),
    *((1, 8, 8), (32, 8, 8), (33, 7, 6), (3, 9, 6)),
)
"""Batch, height and width."""


def gradients(convolve: nn.Module, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output, and the gradients of input and weight of a weighted sum of it."""
    x = x.clone().requires_grad_()
    out = convolve(x)
    of_x, of_weight = torch.autograd.grad(out, [x, convolve.weight], weights)
    return out.detach(), of_x, of_weight


def twins(channels: int, kernel: int, stride: int, dilation: int) -> tuple[Depthwise, nn.Conv2d]:
    """Build ours and torch's with the same random weights."""
    padding = dilation * (kernel // 2)
    torch.manual_seed(0)
    ours = Depthwise(channels, kernel, stride, dilation)
    torch.manual_seed(0)
    theirs = nn.Conv2d(
        channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False
    )
    return ours, theirs


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_all_shapes_equal_torch(layout: torch.memory_format) -> None:
    used = 0
    for kernel, stride, dilation in product((3, 5, 7), (1, 2), (1, 2)):
        ours, theirs = twins(11, kernel, stride, dilation)
        assert torch.equal(ours.weight, theirs.weight)
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        ours, theirs = ours.to(memory_format=layout), theirs.to(memory_format=layout)
        for batch, height, width in SHAPES:
            x = torch.randn(batch, 11, height, width).contiguous(memory_format=layout)
            weights = torch.randn_like(theirs(x))
            out, of_x, of_weight = gradients(ours, x, weights)
            expected, expected_of_x, torch_of_weight = gradients(theirs, x, weights)
            assert torch.equal(out, expected) and out.stride() == expected.stride()
            assert torch.equal(of_x, expected_of_x)
            exact = gradients(theirs.double(), x.double(), weights.double())[2]
            theirs.float()
            scale = exact.abs().max()
            error = (of_weight - exact).abs().max() / scale
            torch_error = (torch_of_weight - exact).abs().max() / scale
            # Where the dilation is removed, oneDNN's fast code, which is less exact, may sum.
            allowed = 3e-7 if dilation == 1 else 3e-6
            assert error <= max(allowed, 1.5 * torch_error), (x.shape, kernel, stride, dilation)
            used += gains(x.shape, kernel, stride, dilation)
    assert used > 60  # the shapes are mostly those where another way is taken


@pytest.mark.parametrize("size", [(3, 3), (2, 5), (9, 9)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_derivatives_of_first_and_second_order(
    size: tuple[int, int], stride: int, dilation: int
) -> None:
    x = torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, 3, 3, dtype=torch.float64, requires_grad=True)

    def convolve(x: Tensor, weight: Tensor) -> Tensor:
        return DepthwiseFunction.apply(x, weight, stride, dilation)

    torch.autograd.gradcheck(convolve, (x, weight), fast_mode=True)
    torch.autograd.gradgradcheck(convolve, (x, weight), fast_mode=True)


def test_torch_is_used_where_it_is_faster_or_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(DepthwiseFunction):
        @staticmethod
        def forward(*_: object) -> Tensor:
            raise AssertionError("another way than torch's")

    monkeypatch.setattr(module, "DepthwiseFunction", Refused)
    convolve, small = Depthwise(4, 5), torch.randn(2, 4, 4, 4)
    with pytest.raises(AssertionError, match="another way"):
        convolve(small)
    convolve(torch.randn(2, 4, 16, 16))
    with torch.no_grad():
        convolve(small)
    with torch.autocast("cpu", torch.bfloat16):
        assert convolve(small).dtype == torch.bfloat16
    convolve.requires_grad_(False)
    convolve(small.requires_grad_())
    convolve.double().requires_grad_(True)
    convolve(small.double())


def test_sums_of_products_known_by_hand() -> None:
    """A gradient of one at one output position leaves the patch of the input under the kernel."""
    x = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    for stride, dilation in ((1, 1), (2, 1), (1, 2), (2, 2)):
        convolve = Depthwise(1, 3, stride, dilation)
        convolve(x)[0, 0, 0, 0].backward()
        padded = F.pad(x, [dilation] * 4)[0, 0]
        patch = padded[: 2 * dilation + 1 : dilation, : 2 * dilation + 1 : dilation]
        assert convolve.weight.grad is not None
        assert torch.equal(convolve.weight.grad[0, 0], patch)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("stride", [1, 2])
def test_small_pointwise_convolutions_are_products(
    layout: torch.memory_format, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = Pointwise(5, 7, stride).to(memory_format=layout)
    x = torch.randn(4, 5, 6, 5).contiguous(memory_format=layout)
    weights = torch.randn(4, 7, 6 // stride, -(-5 // stride))
    product = gradients(layer, x, weights)
    monkeypatch.setattr(operation, "SMALL_PRODUCT_VALUES", 0)
    convolution = gradients(layer, x, weights)
    for ours, theirs in zip(product, convolution, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_pointwise_convolutions_are_products_where_that_is_faster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(operation, "_product", lambda x, weight: taken.append(len(x)) or x)
    layer = Pointwise(16, 16)
    for batch in (1, 90, 110):  # 97 images of 8×8 are within the bound, 98 are not
        layer(torch.randn(batch, 16, 8, 8))
    with torch.no_grad():
        layer(torch.randn(2, 16, 8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.randn(2, 16, 8, 8))
    layer.double()(torch.randn(2, 16, 8, 8).double())
    assert taken == [1, 90]
