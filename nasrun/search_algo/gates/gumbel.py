"""Random relaxations: Gumbel-softmax, and hard choices with estimated derivatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nasrun.search_algo.gates.relaxation import Relaxation


def gumbel_noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Sample -log(-log u) for u uniform in (0, 1).

    The largest of logits plus such noise is option k with the probability softmax(logits)_k.
    """
    uniform = torch.rand(shape, generator=generator).clamp(1e-10, 1 - 1e-7)
    return -(-uniform.log()).log()


def one_hot(scores: Tensor) -> Tensor:
    """Return 1 at the largest score of each row [D, K], and 0 elsewhere."""
    return torch.zeros_like(scores).scatter_(1, scores.argmax(1, keepdim=True), 1.0)


class Gumbel(Relaxation):
    """Softmax of (logits + Gumbel noise) / temperature (SNAS, Xie et al. 2019, Eq. 5; FBNet)."""

    stream = "gumbel"

    def weights(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        noise = gumbel_noise(logits.shape, generator)
        return ((logits + noise.to(logits)) / temperature).softmax(1)


class StraightThrough(Gumbel):
    """The heaviest option alone, with the derivatives of the Gumbel-softmax weights.

    Only the chosen option is computed, so that only its weight has a derivative.
    Source: GDAS (Dong and Yang, CVPR 2019, arXiv 1910.04465), Eq. 5-7.
    """

    hard, opens_all = True, False

    def weights(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        soft = super().weights(logits, temperature, generator)
        return one_hot(soft.detach()) + (soft - soft.detach())


class ReinMax(Relaxation):
    """One option, sampled by the softmax π, with derivatives that are exact to second order.

    With D the sample, J(q) = diag(q) - q qᵀ and π' = (softmax(logits / temperature) + D) / 2, a
    gradient g by the weights becomes 2 J(π') g - J(π) g / 2 by the logits: Heun's method, where
    straight-through is Euler's. Temperatures are 1 or more.
    Source: ReinMax (Liu et al., NeurIPS 2023, arXiv 2304.08612), Algorithm 2.
    """

    hard, stream = True, "gumbel"

    def weights(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        noise = gumbel_noise(logits.shape, generator).to(logits)
        sampled = one_hot(logits.detach() + noise)
        return reinmax(logits, sampled, temperature)


def reinmax(logits: Tensor, sampled: Tensor, temperature: float) -> Tensor:
    """Return ``sampled`` [D, K] itself, with ReinMax' derivatives by the logits [D, K]."""
    between = ((logits.detach() / temperature).softmax(1) + sampled) / 2
    # softmax(logits - a constant) = between, with the derivatives J(between); where an option is
    # closed, ``between`` is 0 and stays so.
    shift = between.log() - logits.detach().where(logits.isfinite(), 0.0)
    moving = (shift + logits.where(logits.isfinite(), 0.0)).softmax(1)
    surrogate = 2 * moving - logits.softmax(1) / 2
    return sampled + (surrogate - surrogate.detach())
