"""Architectures as sequences of tokens, for sequence models."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nasrun.search_space.base import SearchSpace
from nasrun.values import Architecture


class Vocabulary:
    """One token a decision; decisions of one kind share a range of tokens (NAO).

    Token 0 starts a sequence. Then each kind, in the order of first appearance, has as many tokens
    as its largest decision has options: for the NAO cells 6 inputs and 5 operations, 12 in all.

    size: number of tokens V.
    length: tokens of an architecture L.
    allowed: [L, V] bool, the tokens that each decision may take.
    """

    start = 0

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        widths: dict[str, int] = {}
        for decision in space.decisions:
            widths[decision.kind] = max(widths.get(decision.kind, 0), len(decision.options))
        first: dict[str, int] = {}
        self.size = 1
        for kind, width in widths.items():
            first[kind] = self.size
            self.size += width
        self.length = len(space.decisions)
        self.allowed = torch.zeros(self.length, self.size, dtype=torch.bool)
        for position, decision in enumerate(space.decisions):
            start = first[decision.kind]
            self.allowed[position, start : start + len(decision.options)] = True
        self._offsets = torch.tensor([first[decision.kind] for decision in space.decisions])

    def encode(self, architectures: Sequence[Architecture]) -> Tensor:
        """Architectures -> tokens [N, L], int64 on the CPU."""
        choices = torch.tensor([architecture.choices for architecture in architectures])
        return choices.view(len(architectures), self.length) + self._offsets

    def decode(self, tokens: Tensor) -> list[Architecture]:
        """Allowed tokens [N, L] -> architectures."""
        rows = (tokens.cpu() - self._offsets).tolist()
        return [Architecture(self.space.name, tuple(row)) for row in rows]
