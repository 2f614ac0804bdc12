"""APG-NAG: a proximal gradient for an L1 penalty, accelerated by Nesterov's momentum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class ApgNag:
    """Values [n] that start at 1 and become sparse.

    With the gradient g, clipped element by element to ±clip (0: not at all), the momentum μ, the
    rate η and the soft threshold S::

        z = S(λ - η g, η γ);  v = z - λ + μ v;  λ = z + μ v;  λ = max(λ, 0)

    the last step only if ``non_negative``. Source: DSO-NAS (Zhang et al., arXiv 1811.01567),
    Eq. 6-8; the clipping and the last step by its released code.
    """

    def __init__(
        self,
        size: int,
        device: torch.device,
        *,
        rate: float,
        momentum: float,
        clip: float,
        non_negative: bool,
    ) -> None:
        self.values = torch.ones(size, device=device, requires_grad=True)
        self.velocity = torch.zeros(size, device=device)
        self.rate, self.momentum, self.clip = rate, momentum, clip
        self.non_negative = non_negative

    @torch.no_grad()
    def step(self, penalty: Tensor | float, mask: Tensor | None = None) -> None:
        """Take one step by ``values.grad``, which is forgotten.

        penalty: γ, a number or [n].
        mask: [n]; values become 0 where it is 0.
        """
        gradient = self.values.grad
        if gradient is None:
            return
        if self.clip > 0:
            gradient = gradient.clamp(-self.clip, self.clip)
        moved = self.values - self.rate * gradient
        sparse = moved.sign() * (moved.abs() - self.rate * penalty).clamp(min=0)
        self.velocity.mul_(self.momentum).add_(sparse - self.values)
        updated = sparse + self.momentum * self.velocity
        if self.non_negative:
            updated.clamp_(min=0)
        if mask is not None:
            updated.mul_(mask)
            self.velocity.mul_(mask)
        self.values.copy_(updated)
        self.values.grad = None

    @torch.no_grad()
    def close(self, mask: Tensor) -> None:
        """Set values to 0, without momentum, where ``mask`` [n] is 0."""
        self.values.mul_(mask)
        self.velocity.mul_(mask)

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values.detach(), "velocity": self.velocity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError if the state is of another size."""
        with torch.no_grad():
            for own, stored in (
                (self.values, state["values"]),
                (self.velocity, state["velocity"]),
            ):
                if own.shape != stored.shape:
                    raise ValueError("the state is of another search space")
                own.copy_(stored)
