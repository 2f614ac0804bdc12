"""Partial channels: an edge's operations see a share of them, and the others go round.

Source: PC-DARTS (Xu et al., ICLR 2020), §3.2 and its released code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nasrun.errors import UserError
from nasrun.search_space.gates import Gate, Weight


def check_divides(partial_channels: int, channels: int) -> None:
    """Raise UserError if the channels of the search's supernet are not divided evenly."""
    if channels % partial_channels:
        raise UserError(
            f"search_space.partial_channels={partial_channels} does not divide "
            f"search_space.search.channels={channels}"
        )


def join_bypass(out: Tensor, rest: Tensor, gate: Gate, divisor: int) -> Tensor:
    """Join the operations' output [B, C / divisor, H, W] and the channels that went round them.

    ``rest`` has the sum of the weights of the gate, ``none`` included; if these are a softmax times
    a weight of the edge, that is the weight of the edge. Then all channels are shuffled, so that
    the next edges see other channels: [B, C, H, W].
    """
    if not isinstance(gate, int):
        weights = list(gate.values())
        whole: Weight = sum(weights[1:], start=weights[0])
        rest = whole * rest
    return shuffled(torch.cat([out, rest], dim=1), divisor)


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Take the channels of the groups in turns: [B, C, H, W] -> the same shape (ShuffleNet)."""
    batch, channels, height, width = x.shape
    apart = x.reshape(batch, groups, channels // groups, height, width)
    return apart.transpose(1, 2).reshape(x.shape)
