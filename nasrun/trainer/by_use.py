"""Means of the gradients of a step's paths, for each weight over those that have used it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nasrun.run.ranks import Ranks


class MeansByUse:
    """Adds up the gradients of paths, and divides each by the share of the paths that gave one.

    A weight that all paths share gets the mean over all of them, and a weight of one path its own
    gradient in full, where the plain mean would shrink it by the number of paths.

    parameters: those whose ``grad`` is averaged.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = parameters
        self._sums: dict[int, Tensor] = {}
        self._shares = [0.0] * len(parameters)

    def passed(self, share: float) -> None:
        """Take the gradients of one path on ``share`` of the images, away from ``grad``."""
        for index, parameter in enumerate(self.parameters):
            if (gradient := parameter.grad) is None:
                continue
            self._shares[index] += share
            known = self._sums.get(index)
            self._sums[index] = gradient if known is None else known.add_(gradient)
            parameter.grad = None

    def put_back(self) -> None:
        """Put the sums over the paths of this rank into ``grad``."""
        for index, total in self._sums.items():
            self.parameters[index].grad = total

    def divide(self, ranks: Ranks) -> None:
        """Turn the sums of all ranks, which are in ``grad`` now, into the means."""
        shares = torch.tensor(self._shares)
        ranks.add_up([shares])
        for parameter, share in zip(self.parameters, shares.tolist(), strict=True):
            if parameter.grad is not None:
                parameter.grad.div_(share)
