"""Steps of a policy by rewards: REINFORCE with a baseline, and proximal policy optimisation.

Shapes: N architectures, D decisions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from nasrun.errors import UserError
from nasrun.limits import Strength
from nasrun.run.state import load_optimiser_state, optimiser_state
from nasrun.search_algo.enas.controller import Controller, Positive

Share = Annotated[float, Field(ge=0, lt=1)]


class LearningSettings(BaseModel):
    """Settings of the policy's steps; units and sources stand in the YAML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Literal["reinforce", "ppo"]
    lr: Positive
    baseline_decay: Share
    entropy_weight: Strength
    clip: Annotated[float, Field(gt=0, le=1)]
    epochs: Annotated[int, Field(gt=0, le=1000)]
    max_norm: Strength


def clipped_loss(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """Return minus PPO's objective min(r A, clip(r, 1 - ε, 1 + ε) A), mean over N; inputs: [N].

    An architecture whose probability has changed by more than the share ε in the direction that its
    advantage asks for has no gradient. Source: Schulman et al. 2017, arXiv 1707.06347, Eq. 7.
    """
    bounded = ratio.clamp(1 - clip, 1 + clip)
    return -torch.minimum(ratio * advantages, bounded * advantages).mean()


class PolicyLearning:
    """Trains a controller by rewards, with Adam.

    baseline: the exponential moving average of the rewards of earlier updates; None before the
    first, which takes its own mean.
    """

    def __init__(self, controller: Controller, settings: LearningSettings) -> None:
        self.controller, self.settings = controller, settings
        self.baseline: float | None = None
        self.optimiser = torch.optim.Adam(controller.parameters(), lr=settings.lr)

    def loss(self, choices: Tensor, advantages: Tensor, before: Tensor | None) -> Tensor:
        """Return the loss of the present policy: [N, D] choices, [N] advantages -> a scalar.

        before: log-probabilities [N] by the policy that sampled them, for PPO; None: the present
        ones. The entropy of the policy, times its weight, is subtracted.
        """
        sample = self.controller.probabilities_of(choices)
        if self.settings.rule == "ppo":
            reference = sample.log_prob.detach() if before is None else before
            ratio = (sample.log_prob - reference).exp()
            loss = clipped_loss(ratio, advantages, self.settings.clip)
        else:
            loss = -(advantages * sample.log_prob).mean()
        return loss - self.settings.entropy_weight * sample.entropy.mean()

    def update(self, choices: Tensor, rewards: Sequence[float]) -> None:
        """Learn from N architectures, sampled by the present policy, and their rewards.

        choices: [N, D]. Raises UserError if the weights are no longer finite.
        """
        mean = sum(rewards) / len(rewards)
        baseline = mean if self.baseline is None else self.baseline
        self.baseline = baseline + (1 - self.settings.baseline_decay) * (mean - baseline)
        advantages = torch.tensor(rewards) - baseline
        with torch.no_grad():
            before = self.controller.probabilities_of(choices).log_prob
        for _ in range(self.settings.epochs if self.settings.rule == "ppo" else 1):
            self.optimiser.zero_grad()
            loss = self.loss(choices, advantages, before)
            loss.backward()  # type: ignore[no-untyped-call]
            if self.settings.max_norm:
                nn.utils.clip_grad_norm_(self.controller.parameters(), self.settings.max_norm)
            self.optimiser.step()
        if not all(weight.isfinite().all() for weight in self.controller.parameters()):
            raise UserError(
                "the weights of the controller are no longer finite: lower "
                "search_algo.learning.lr or search_algo.learning.entropy_weight"
            )

    def state_dict(self) -> dict[str, Any]:
        return {
            "controller": dict(self.controller.state_dict()),
            "optimiser": optimiser_state(self.optimiser),
            "baseline": self.baseline,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises ValueError if it does not fit this controller."""
        self.controller.load_state_dict(state["controller"])
        load_optimiser_state(self.optimiser, state["optimiser"])
        self.baseline = None if state["baseline"] is None else float(state["baseline"])
        if self.baseline is not None and not math.isfinite(self.baseline):
            raise ValueError("the baseline is not finite")
