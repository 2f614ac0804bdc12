"""Layers that use only their first channels: one set of weights for all widths."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from nasrun.search_space.depthwise import depthwise
from nasrun.search_space.spos.layers import ConvPlan


class SlicedBatchNorm(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` on the first channels of its weights and statistics.

    forward: x [B, C, H, W] with C at most ``num_features`` -> the same shape, normalised. The
    result and the changed statistics equal those of a batch norm of C channels with the first C
    values of all tensors. All widths share one count of batches.
    """

    def forward(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        channels = x.shape[1]

        def first(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[:channels]

        tracked = self.num_batches_tracked
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and tracked is not None:
            tracked.add_(1)
            if self.momentum is None:  # torch's sign for a cumulative average
                momentum = 1.0 / float(tracked)
        used = self.track_running_stats or not self.training
        return F.batch_norm(
            x,
            first(self.running_mean) if used else None,  # a view: training changes the buffer
            first(self.running_var) if used else None,
            first(self.weight),
            first(self.bias),
            self.training or (self.running_mean is None and self.running_var is None),
            momentum,
            self.eps,
        )


class SlicedConvNorm(nn.ModuleList):
    """``ConvNorm`` at its largest width, with parameters of the same names.

    forward: x [B, C, H, W] with C at most ``inputs`` -> [B, outputs, H', W'], computed with the
    weights of the first channels on both sides.
    """

    def __init__(self, plan: ConvPlan) -> None:
        relu = [nn.ReLU()] if plan.relu else []
        super().__init__([SlicedConv(plan), SlicedBatchNorm(plan.outputs), *relu])

    def forward(self, x: Tensor, outputs: int) -> Tensor:
        convolution, *others = self
        x = convolution(x, outputs)
        for module in others:
            x = module(x)
        return x


class SlicedConv(nn.Module):
    """A convolution at its largest width: x [B, C, H, W] -> [B, outputs, H', W']."""

    def __init__(self, plan: ConvPlan) -> None:
        super().__init__()
        self.stride, self.depthwise = plan.stride, plan.kernel > 1
        self.weight = plan.convolution().weight

    def forward(self, x: Tensor, outputs: int) -> Tensor:
        if self.depthwise:
            return depthwise(x, self.weight[:outputs], self.stride)
        return F.conv2d(x, self.weight[:outputs, : x.shape[1]], None, self.stride)
