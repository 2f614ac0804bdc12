"""Quantisation to few bits, simulated in fp32, with gradients that pass through.

bf16 has 8 bits in all: values of 7 and 8 bits would leave their grid. So what computes with
quantised values does it in ``full_precision``, also where networks run in bf16.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

MIN_DIVISOR = 1e-6
"""Lower bound of divisors, so that a weight or a clipping value at zero gives no NaN."""


@contextmanager
def full_precision(x: Tensor) -> Iterator[Tensor]:
    """Yield ``x`` in fp32; within, operations on its device compute in fp32."""
    kind = x.device.type
    if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
        yield x
        return
    with torch.autocast(kind, enabled=False):
        yield x.float()


class _StraightThrough(torch.autograd.Function):
    """The first tensor's values with the second's gradient; both have one shape."""

    @staticmethod
    def forward(ctx: Any, exact: Tensor, smooth: Tensor) -> Tensor:
        return exact.view_as(exact)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


def straight_through(exact: Tensor, smooth: Tensor) -> Tensor:
    """Return ``exact`` with the gradient of ``smooth`` (Bengio et al. 2013, arXiv 1308.3432).

    ``smooth + (exact - smooth).detach()`` would round, and k bits would give more than 2^k values.
    """
    return cast(Tensor, _StraightThrough.apply(exact.detach(), smooth))


def levels(x: Tensor, bits: int) -> Tensor:
    """Round x in [0, 1], any shape, to the nearest of 2^bits evenly spaced values.

    The gradient is that of x. Source: quantize_k of DoReFa-Net, Eq. 5.
    """
    steps = 2**bits - 1
    return straight_through((x.detach() * steps).round() / steps, x)


def quantise_weight(weight: Tensor, bits: int) -> Tensor:
    """Quantise a weight of any shape to at most 2^bits values, by its own range.

    One bit: the sign times the mean magnitude, which counts as a constant; the gradient passes
    unchanged. More bits: tanh, divided by its largest magnitude, rounded to an even grid from -1 to
    1; the gradient is that of the value before rounding, including the divisor. Source: DoReFa-Net
    (Zhou et al. 2016, arXiv 1606.06160, Eq. 7 and 9).
    """
    if bits == 1:
        with torch.no_grad():
            signed = torch.where(weight < 0, -1.0, 1.0) * weight.abs().mean()
        return straight_through(signed, weight)
    squashed = weight.tanh()
    normal = squashed / (2 * squashed.abs().amax().clamp_min(MIN_DIVISOR)) + 0.5
    return 2 * levels(normal, bits) - 1


def quantise_activation(x: Tensor, alpha: Tensor, bits: int) -> Tensor:
    """Clip x [B, C, H, W] to [0, alpha] and round it to an even grid of 2^bits values.

    alpha: broadcasts over x. The gradient goes to x where 0 < x < alpha, and to alpha where
    x >= alpha. Source: PACT (Choi et al. 2018, arXiv 1805.06085, Eq. 1 to 3).
    """
    # After a large step to zero or below, alpha still gets a gradient, so it can recover.
    top = straight_through(alpha.clamp_min(MIN_DIVISOR), alpha)
    clipped = torch.where(x < top, x.relu(), top)
    with torch.no_grad():
        exact = levels(clipped / top, bits) * top
    return straight_through(exact, clipped)
