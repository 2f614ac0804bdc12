"""Relaxations: how the logits of a decision become the weights of its options.

Closed options have the logit minus infinity, and the weight 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F


class Relaxation(ABC):
    """A rule from logits [D, K] of D decisions with K options to weights [D, K].

    hard: whether each decision has one option of weight 1, and all others have 0.
    opens_all: whether the gates' own step computes all options, for the derivatives by weights of
    0; otherwise that of weight 1 alone. Of soft rules it is always true.
    stream: name of the random stream of the weights' steps.
    """

    hard: ClassVar[bool] = False
    opens_all: ClassVar[bool] = True
    stream: ClassVar[str] = "relaxation"

    @abstractmethod
    def weights(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """Return the weights of a step, differentiable in the logits.

        generator: on the CPU; random rules sample from it.
        """

    def shares(self, logits: Tensor) -> Tensor:
        """Return the weights that are expected, from which the architecture is derived."""
        return logits.softmax(1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return shares that add up to 1 in each decision, for the entropy of the gates."""
        return self.shares(logits)


class Softmax(Relaxation):
    """The mixture of DARTS: exp(α_k) / Σ exp(α_j) (Liu et al. 2019, Eq. 2)."""

    def weights(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        return logits.softmax(1)


class Sigmoid(Relaxation):
    """Independent weights 1 / (1 + exp(-α_k)), so that no option displaces another.

    Source: FairDARTS (Chu et al., ECCV 2020, arXiv 1911.12126), Eq. 4.
    """

    def weights(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        return logits.sigmoid()

    def shares(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def probabilities(self, logits: Tensor) -> Tensor:
        shares = self.shares(logits)
        return shares / shares.sum(1, keepdim=True)


class Dirichlet(Relaxation):
    """Weights from a Dirichlet distribution, whose concentrations are ELU(α_k) + 1.

    They are independent gamma variables divided by their sum, with pathwise derivatives.
    Source: DrNAS (Chen et al., ICLR 2021, arXiv 2006.10355), Eq. 3 and §3.1.
    """

    stream = "dirichlet"

    @staticmethod
    def concentrations(logits: Tensor) -> Tensor:
        """Return the concentrations [D, K]; 0 for closed options."""
        return F.elu(logits) + 1

    def weights(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        opened = logits.isfinite()
        # On the CPU, so that every device samples the same.
        concentrations = self.concentrations(logits).where(opened, 1.0).clamp(min=1e-6).cpu()
        gammas = _gammas(concentrations, generator).to(logits.device) * opened
        return gammas / gammas.sum(1, keepdim=True)

    def shares(self, logits: Tensor) -> Tensor:
        concentrations = self.concentrations(logits)
        return concentrations / concentrations.sum(1, keepdim=True)


def _gammas(concentrations: Tensor, generator: torch.Generator) -> Tensor:
    """Sample gamma variables with scale 1, of the same shape, differentiable."""
    with torch.random.fork_rng(devices=[]):  # the distribution takes no generator
        torch.default_generator.manual_seed(generator.initial_seed())
        scale = torch.ones_like(concentrations)
        sampled: Tensor = torch.distributions.Gamma(concentrations, scale).rsample()
    return sampled
