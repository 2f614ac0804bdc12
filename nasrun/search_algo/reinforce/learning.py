"""Steps of a policy by rewards: REINFORCE with a baseline, and proximal policy optimisation.

Shapes: N architectures, D decisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from nasrun.limits import Strength
from nasrun.search_algo.enas.controller import Controller, Positive
from nasrun.search_algo.enas.reinforce import ControllerLearner, Share


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


class PolicyLearning(ControllerLearner):
    """Trains a controller by rewards.

    The baseline is the exponential moving average of the rewards of earlier updates; the first
    update takes its own mean.
    """

    def __init__(self, controller: Controller, settings: LearningSettings) -> None:
        super().__init__(controller, torch.optim.Adam(controller.parameters(), lr=settings.lr))
        self.settings = settings

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
            loss = self.loss(choices, advantages, before)
            self.step(loss, "learning", self.settings.max_norm)
