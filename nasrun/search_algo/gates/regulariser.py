"""Regularisers of learned gates: penalties of the logits, and help for or against skips."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from nasrun.limits import Strength
from nasrun.search_algo.gates.relaxation import Dirichlet, Relaxation

SKIP_DECAY_PER_EPOCH = 0.2
"""Decay rate of skip dropout per epoch in which the gates learn (P-DARTS' released code)."""


class Regulariser(BaseModel):
    """Weights of the penalties that are added to the loss of the gates, and rates; 0: left out.

    zero_one: of ``zero_one_loss`` (FairDARTS). entropy: of the mean entropy of the decisions.
    beta_decay: of ``beta_decay_loss`` at the end; it rises from 0 in proportion to the steps.
    kl: of ``dirichlet_kl`` (DrNAS).
    skip_dropout: probability that an element of a skip connection is dropped (P-DARTS).
    auxiliary_skip: weight of one more skip connection on each edge at the first step, which falls
    to 0 in proportion to the steps (DARTS-).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    zero_one: Strength
    entropy: Strength
    beta_decay: Strength
    kl: Strength
    skip_dropout: Annotated[float, Field(ge=0, lt=1)]
    auxiliary_skip: Strength

    @property
    def penalises(self) -> bool:
        """Whether there is a penalty."""
        return any((self.zero_one, self.entropy, self.beta_decay, self.kl))

    def penalty(self, logits: Tensor, relaxation: Relaxation, progress: float) -> Tensor:
        """Return the sum of the penalties, of which there is one at least.

        logits: [D, K], minus infinity for closed options. progress: share of the steps done.
        """
        terms = []
        if self.zero_one:
            terms.append(self.zero_one * zero_one_loss(relaxation.shares(logits), logits))
        if self.entropy:
            probabilities = relaxation.probabilities(logits)
            terms.append(self.entropy * torch.special.entr(probabilities).sum(1).mean())
        if self.beta_decay:
            terms.append(self.beta_decay * progress * beta_decay_loss(logits))
        if self.kl:
            terms.append(self.kl * dirichlet_kl(Dirichlet.concentrations(logits)))
        return sum(terms[1:], start=terms[0])


def zero_one_loss(shares: Tensor, logits: Tensor) -> Tensor:
    """Return -Σ (share - 1/2)² / n over the n open options; least where all shares are 0 or 1.

    Source: FairDARTS (arXiv 1911.12126), Eq. 5.
    """
    opened = logits.isfinite()
    return -(((shares - 0.5) ** 2) * opened).sum() / opened.sum()


def beta_decay_loss(logits: Tensor) -> Tensor:
    """Return the mean over decisions of log Σ exp(logit), the smooth largest logit.

    Its gradient is the softmax, so that large weights decay more than small ones.
    Source: β-DARTS (Ye et al., CVPR 2022, arXiv 2203.01665), Eq. 16.
    """
    return logits.logsumexp(1).mean()


def dirichlet_kl(concentrations: Tensor) -> Tensor:
    """Return Σ KL(Dir(β) ‖ Dir(1)) over decisions; closed options have the concentration 0.

    KL = ln Γ(Σβ) - Σ ln Γ(β_k) - ln Γ(K) + Σ (β_k - 1)(ψ(β_k) - ψ(Σβ)).
    Source: DrNAS (arXiv 2006.10355), Eq. 6.
    """
    opened = concentrations > 0
    safe = concentrations.where(opened, 1.0)
    total = concentrations.sum(1, keepdim=True)
    terms = (safe - 1) * (torch.digamma(safe) - torch.digamma(total)) - torch.lgamma(safe)
    options = opened.sum(1, keepdim=True).to(total)
    return (torch.lgamma(total) - torch.lgamma(options)).sum() + (terms * opened).sum()


def skip_dropout_rate(
    rate: float, done: int, *, resting: int, steps: int, steps_per_epoch: int
) -> float:
    """Return the rate of skip dropout after ``done`` of ``steps`` steps.

    With E epochs in all and e of them done, it is rate·(E - e - 1) / E in the ``resting`` steps at
    first. When the gates begin to learn it is the rate again, and falls by exp(-0.2) an epoch.
    Source: P-DARTS' released code.
    """
    if done < resting:
        epochs = steps / steps_per_epoch
        return rate * max(epochs - done / steps_per_epoch - 1.0, 0.0) / epochs
    return rate * math.exp(-SKIP_DECAY_PER_EPOCH * ((done - resting) / steps_per_epoch))
