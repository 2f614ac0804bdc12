"""Operation-level early stopping: operations that overfit learn no more (OLES)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nasrun.search_space.base import Supernet


class Agreement:
    """Compares each operation's gradients on training and on held-out images.

    After ``looks`` steps an operation with a mean cosine below ``threshold`` is frozen: it learns
    the training images in another way than the held-out ones. Its gates learn on.
    Source: OLES (Jiang et al., NeurIPS 2023) and its released code, whose threshold of 0.4 is for
    the cosine of the training gradient with the sum of both gradients: there the held-out images'
    is added to what the weights still hold. Equation 5 has the held-out images' alone.
    """

    def __init__(self, threshold: float, looks: int) -> None:
        self.threshold, self.looks = threshold, looks
        self._network: nn.Module | None = None
        self._operations: list[list[nn.Parameter]] = []
        self._held_out: list[list[Tensor | None]] = []
        self._sums: Tensor | None = None  # of the cosines of each operation
        self._count = 0
        self.frozen: list[bool] = []

    def begin(self, network: Supernet) -> None:
        """Watch the operations of ``network``, and freeze again those that were frozen."""
        if network is self._network:
            return
        self._network = network
        modules = [list(module.parameters()) for module, _ in network.option_modules()]
        self._operations = [parameters for parameters in modules if parameters]
        if len(self.frozen) != len(self._operations):
            self.frozen = [False] * len(self._operations)
        self._freeze()

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The weights of all operations that are not frozen."""
        return [p for operation in self._learning() for p in operation]

    def take_held_out(self) -> None:
        """Take the gradients of the held-out images away from the weights."""
        self._held_out = [[p.grad for p in operation] for operation in self._operations]
        for parameter in self.parameters:
            parameter.grad = None

    def compare(self) -> None:
        """Compare with the gradients of the training images, which the weights have now."""
        if not self._held_out:
            return
        pairs = zip(self._operations, self._held_out, strict=True)
        cosines = torch.stack([_cosine(operation, held) for operation, held in pairs])
        self._sums = cosines if self._sums is None else self._sums.to(cosines) + cosines
        self._count, self._held_out = self._count + 1, []
        if self._count < self.looks:
            return
        means = (self._sums / self._count).tolist()
        self.frozen = [
            frozen or mean < self.threshold for frozen, mean in zip(self.frozen, means, strict=True)
        ]
        self._sums, self._count = None, 0
        self._freeze()

    def metrics(self) -> dict[str, float]:
        """Return the share of operations that are frozen."""
        return {"frozen": sum(self.frozen) / len(self.frozen)} if self.frozen else {}

    def state_dict(self) -> dict[str, Any]:
        sums = torch.zeros(0) if self._sums is None else self._sums
        return {"sums": sums, "count": self._count, "frozen": list(self.frozen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sums = state["sums"] if len(state["sums"]) else None
        self._count, self.frozen = int(state["count"]), [bool(one) for one in state["frozen"]]
        self._network = None  # so that they are frozen again

    def _learning(self) -> list[list[nn.Parameter]]:
        pairs = zip(self._operations, self.frozen, strict=True)
        return [operation for operation, frozen in pairs if not frozen]

    def _freeze(self) -> None:
        for operation, frozen in zip(self._operations, self.frozen, strict=True):
            for parameter in operation:
                parameter.requires_grad_(not frozen)


def _cosine(operation: list[nn.Parameter], held_out: list[Tensor | None]) -> Tensor:
    """Return the mean over an operation's tensors of cosine(training, training + held-out).

    Of a tensor it is the mean of the cosines along its first dimension, as in the released code.
    It is 1 where the operation has no gradient.
    """
    cosines = [
        torch.cosine_similarity(p.grad, p.grad + held, dim=0).mean()
        for p, held in zip(operation, held_out, strict=True)
        if p.grad is not None and held is not None
    ]
    if not cosines:
        return torch.ones((), device=operation[0].device)
    return torch.stack(cosines).mean()
