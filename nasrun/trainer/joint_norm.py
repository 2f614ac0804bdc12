"""Batch norm whose statistics are those of all ranks' images together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from nasrun.run.ranks import Ranks


@contextmanager
def joint_statistics(ranks: Ranks) -> Iterator[None]:
    """Let ``F.batch_norm`` take the statistics of its batches over all ranks inside.

    The function itself is exchanged, since every batch norm calls it: modules of torch, those of
    ours on slices of channels, and those of other packages. torch's ``SyncBatchNorm`` would be
    another class of modules, works on CUDA devices alone, and synchronises in evaluation runs of
    single ranks as well.
    """
    alone = F.batch_norm

    def batch_norm(
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return alone(x, running_mean, running_var, weight, bias, False, momentum, eps)
        output, mean, variance, count = _JointNorm.apply(x, weight, bias, eps, ranks, alone)
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean), momentum)
                unbiased = variance * (count / (count - 1))
                running_var.lerp_(unbiased.to(running_var), momentum)
        return output  # type: ignore[no-any-return]

    F.batch_norm = batch_norm  # type: ignore[assignment]
    try:
        yield
    finally:
        F.batch_norm = alone


class _JointNorm(torch.autograd.Function):
    """Normalises x [B, C, ...] by mean and variance over the images of all ranks.

    Source of the gradient: Ioffe and Szegedy 2015, §3, its means taken over all ranks.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        ranks: Ranks,
        alone: Any,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the output, and the mean [C], the variance [C] and the count [] of all ranks."""
        own, channels = _others(x), x.shape[1]
        variance, mean = torch.var_mean(_wide(x), own, correction=0)
        # A row for each rank: no large numbers are subtracted, as from a sum of squares.
        rows = mean.new_zeros(ranks.size, 2 * channels + 1)
        count = mean.new_tensor([x.numel() / channels])
        rows[ranks.rank] = torch.cat([mean, variance, count])
        ranks.add_up([rows])
        means, variances, counts = rows[:, :channels], rows[:, channels:-1], rows[:, -1:]
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        variance = (counts * (variances + (means - mean) ** 2)).sum(0) / total
        output = alone(x, mean, variance, weight, bias, False, 0.0, eps)
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), total)
        ctx.ranks, ctx.has_bias = ranks, bias is not None
        ctx.mark_non_differentiable(mean, variance, total)
        return output, mean, variance, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, total = ctx.saved_tensors
        own = _others(x)
        shape = [1, -1, *[1] * (x.dim() - 2)]
        centred = (_wide(x) - mean.view(shape)) * scale.view(shape)
        gradient = _wide(gradient)
        sums = torch.stack([gradient.sum(own), (gradient * centred).sum(own)])
        by_bias, by_weight = sums.clone()
        ctx.ranks.add_up([sums])
        means = sums / total
        factor = scale if weight is None else scale * weight
        by_x = gradient - means[0].view(shape) - centred * means[1].view(shape)
        by_x = (by_x * factor.view(shape)).to(x.dtype)
        own_weight = None if weight is None else by_weight.to(weight.dtype)
        return by_x, own_weight, by_bias if ctx.has_bias else None, None, None, None


def _others(x: Tensor) -> list[int]:
    """Return all dimensions but that of the channels."""
    return [0, *range(2, x.dim())]


def _wide(x: Tensor) -> Tensor:
    """Return numbers in which sums over many images are exact enough."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
