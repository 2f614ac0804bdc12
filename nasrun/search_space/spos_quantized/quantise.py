"""Numbers of few bits, simulated in floating point, and the gradients that pass through them."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

SMALLEST = 1e-6
"""What a divisor is at least, so that a weight or a clipping value at zero gives no NaN."""


class _StraightThrough(torch.autograd.Function):
    """The first tensor's values with the second's gradient; both of one shape."""

    @staticmethod
    def forward(ctx: Any, exact: Tensor, smooth: Tensor) -> Tensor:
        return exact.view_as(exact)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


def straight_through(exact: Tensor, smooth: Tensor) -> Tensor:
    """``exact``, with the gradient of ``smooth``; source: Bengio et al. 2013, arXiv 1308.3432.

    Not ``smooth + (exact - smooth).detach()``, which rounds: k bits would give more values than
    2^k.
    """
    return cast(Tensor, _StraightThrough.apply(exact.detach(), smooth))


def levels(x: Tensor, bits: int) -> Tensor:
    """x in [0, 1], any shape: the nearest of 2^bits evenly spaced values from 0 to 1.

    The gradient is that of x. Source: quantize_k of DoReFa-Net, Eq. 5.
    """
    steps = 2**bits - 1
    return straight_through((x.detach() * steps).round() / steps, x)


def quantise_weight(weight: Tensor, bits: int) -> Tensor:
    """Any shape: at most 2^bits values, those of a tensor of its own.

    One bit: the sign times the mean magnitude, which counts as a constant; the gradient passes as
    it is. More: tanh, divided by its largest magnitude, on an even grid from -1 to 1; the gradient
    is that of the value before rounding, its divisor included. Source: DoReFa-Net (Zhou et al.
    2016, arXiv 1606.06160, Eq. 7 and 9).
    """
    if bits == 1:
        with torch.no_grad():
            signed = torch.where(weight < 0, -1.0, 1.0) * weight.abs().mean()
        return straight_through(signed, weight)
    squashed = weight.tanh()
    normal = squashed / (2 * squashed.abs().amax().clamp_min(SMALLEST)) + 0.5
    return 2 * levels(normal, bits) - 1


def quantise_activation(x: Tensor, alpha: Tensor, bits: int) -> Tensor:
    """x [B, C, H, W] clipped to [0, alpha], on an even grid of 2^bits values.

    alpha: broadcasts over x. The gradient goes to x where 0 < x < alpha, and to alpha where
    x >= alpha. Source: PACT (Choi et al. 2018, arXiv 1805.06085, Eq. 1 to 3).
    """
    # A large step must not carry alpha to zero for good: it still gets its gradient there.
    top = straight_through(alpha.clamp_min(SMALLEST), alpha)
    clipped = torch.where(x < top, x.relu(), top)
    with torch.no_grad():
        exact = levels(clipped / top, bits) * top
    return straight_through(exact, clipped)
