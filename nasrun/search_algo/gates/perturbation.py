"""Perturbed gates in the weights' steps: the loss then stays low around the gates (SDARTS)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from nasrun.limits import Count

Radius = Annotated[float, Field(ge=0, le=1)]

LossAt = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Weights [D, K] -> the training loss, a scalar, and its gradient [D, K]."""


class Perturbation(BaseModel):
    """SmoothDARTS (Chen and Hsieh, ICML 2020, arXiv 2002.05283).

    kind: ``random``: uniform noise (SDARTS-RS, Eq. 5); ``adversarial``: the worst weights that
    gradient ascent finds (SDARTS-ADV, Eq. 6).
    start, end: largest change of a weight at the first step and after the last; linear between.
    steps: of gradient ascent.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["none", "random", "adversarial"]
    start: Radius
    end: Radius
    steps: Count

    def radius(self, progress: float) -> float:
        """Return the largest change of a weight; progress: share of the steps done."""
        return self.start + (self.end - self.start) * progress


def on_simplex(weights: Tensor, opened: Tensor) -> Tensor:
    """Return weights [D, K] of at least 0 that add up to 1; closed options have 0.

    Weights are cut to [0, 1] and divided by their sum (released code).
    """
    cut = weights.clamp(0, 1) * opened
    heaviest = weights.masked_fill(~opened, -torch.inf).argmax(1, keepdim=True)
    fallback = torch.zeros_like(cut).scatter_(1, heaviest, 1.0)
    total = cut.sum(1, keepdim=True)
    return torch.where(total > 0, cut / total.clamp(min=1e-12), fallback)


def perturb_at_random(
    weights: Tensor, opened: Tensor, radius: float, generator: torch.Generator
) -> Tensor:
    """Add uniform noise in ±radius to weights [D, K] of open options.

    generator: on the CPU.
    """
    noise = (2 * torch.rand(weights.shape, generator=generator) - 1) * radius
    return on_simplex(weights + noise.to(weights), opened)


def perturb_against(
    weights: Tensor,
    opened: Tensor,
    radius: float,
    steps: int,
    loss_at: LossAt,
    generator: torch.Generator,
) -> Tensor:
    """Find weights within ±radius of ``weights`` [D, K] where the training loss is high.

    From a random start, each step moves every weight by 2·radius / steps along the sign of the
    gradient. If the loss is not higher in the end, the weights are returned as they were.
    """
    before, _ = loss_at(weights)
    found = perturb_at_random(weights, opened, radius, generator)
    for _ in range(steps):
        _, gradient = loss_at(found)
        moved = found + (2 * radius / steps) * gradient.sign()
        found = on_simplex(weights + (moved - weights).clamp(-radius, radius), opened)
    after, _ = loss_at(found)
    return torch.where(after > before, found, weights)
