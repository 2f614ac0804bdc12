"""Relaxations: how the logits of a decision become the weights of its options.

Closed options have the logit minus infinity, and the weight 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F


class Relaxation(ABC):
    """A rule from logits [D, K] of D decisions with K options to weights [D, K].

    hard: whether each decision has one option of weight 1, and all others have 0.
    opens_all: whether the gates' own step computes all options, for the derivatives by weights of
    0; otherwise that of weight 1 alone. Of soft rules it is always true.
    competes: whether the weight of an option takes from the others; if not, ``none`` is closed, as
    no loss would move its weight.
    stream: name of the random stream of the weights' steps.
    """

    hard: ClassVar[bool] = False
    opens_all: ClassVar[bool] = True
    competes: ClassVar[bool] = True
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

    competes = False

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
        concentrations = self.concentrations(logits).where(opened, 1.0).clamp(min=1e-6)
        gammas = sample_gammas(concentrations, generator) * opened
        return gammas / gammas.sum(1, keepdim=True)

    def shares(self, logits: Tensor) -> Tensor:
        concentrations = self.concentrations(logits)
        return concentrations / concentrations.sum(1, keepdim=True)


PROPOSALS = 8
"""Proposals for a gamma variable, of which the first that is accepted counts: each is, with a
probability above 0.95."""


def sample_gammas(concentrations: Tensor, generator: torch.Generator) -> Tensor:
    """Sample gamma variables with scale 1, of the same shape, with pathwise derivatives.

    The noise is sampled on the CPU, so every device samples the same; as the number of proposals is
    fixed, the host does not wait for the device.
    Source: Marsaglia and Tsang, ACM Transactions on Mathematical Software 26 (2000).
    """
    given = concentrations.detach()
    normal = torch.randn(PROPOSALS, *given.shape, generator=generator).to(given.device)
    noise = torch.rand(PROPOSALS + 1, *given.shape, generator=generator).to(given.device)
    uniform, power = 1 - noise[:-1], 1 - noise[-1]  # above 0
    tiny = torch.finfo(given.dtype).tiny
    # Of a shape above 1; a power of another variable then lowers it by 1, as small ones need.
    d = given + 1 - 1 / 3
    cube = (1 + normal / (9 * d).sqrt()) ** 3
    bound = 0.5 * normal**2 + d - d * cube + d * cube.clamp(min=tiny).log()
    accepted = (cube > 0) & (uniform.log() < bound)
    first = accepted.int().argmax(0, keepdim=True)
    sampled = d * cube.gather(0, first)[0] * power ** (1 / given)
    found: Tensor = _Pathwise.apply(concentrations, sampled.clamp(min=tiny))
    return found


class _Pathwise(torch.autograd.Function):
    """Gamma variables as functions of their concentrations, at fixed quantiles."""

    @staticmethod
    def forward(ctx: Any, concentrations: Tensor, sampled: Tensor) -> Tensor:
        ctx.save_for_backward(concentrations, sampled)
        return sampled.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return gradient * torch._standard_gamma_grad(*ctx.saved_tensors), None
