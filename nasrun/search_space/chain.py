"""Chains: networks whose pieces are computed one after the other."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from torch import Tensor


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
