"""Learning rates as pure functions of the step."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from nasrun.limits import Epochs, Strength


class Schedule(BaseModel):
    """The learning rate over the steps of a training, from ``lr`` to ``lr_end``.

    kind: cosine, linear, polynomial, exponential or constant.
    spans: ``round``: starts anew in each round of supernet training; ``run``: covers all rounds.
    cycle_epochs: epochs of the first cosine cycle; 0: a single cycle over the whole span. Each
    further cycle is cycle_factor times as long (warm restarts, Loshchilov & Hutter 2017).
    power: exponent of the polynomial schedule, lr_end + (lr - lr_end) (1 - t / T)^power.
    decay: factor of the exponential schedule, applied once per epoch.
    warmup_epochs: epochs at the start in which the rate rises linearly from 0.
    per: ``step``: the rate changes at each step; ``epoch``: after the warm-up it is in all steps of
    an epoch what it is in the first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["cosine", "linear", "polynomial", "exponential", "constant"]
    lr: Annotated[Strength, Field(gt=0)]
    lr_end: Strength
    spans: Literal["round", "run"]
    cycle_epochs: Epochs
    cycle_factor: float = Field(ge=1)
    power: Strength
    decay: float = Field(gt=0, le=1)
    warmup_epochs: Epochs
    per: Literal["step", "epoch"] = "step"

    def learning_rate(
        self, step: int, steps: int, steps_per_epoch: int, power: float | None = None
    ) -> float:
        """Return the learning rate of ``step`` in 0 .. steps - 1.

        power: exponent of the polynomial schedule that replaces its own.
        """
        warmup = round(self.warmup_epochs * steps_per_epoch)
        if step < warmup:
            return self.lr * (step + 1) / warmup
        if self.per == "epoch":
            step = max(step // steps_per_epoch * steps_per_epoch, warmup)
        step, steps = step - warmup, max(steps - warmup, 1)
        if self.kind == "constant":
            return self.lr
        if self.kind == "exponential":
            return float(max(self.lr * self.decay ** (step // steps_per_epoch), self.lr_end))
        if self.kind == "linear":
            return self.lr + (self.lr_end - self.lr) * step / steps
        if self.kind == "polynomial":
            power = self.power if power is None else power
            return float(self.lr_end + (self.lr - self.lr_end) * (1 - step / steps) ** power)
        position, cycle = float(step), self.cycle_epochs * steps_per_epoch
        if cycle > 0:
            cycle = max(cycle, 1.0)  # a cycle has at least one step
            if self.cycle_factor == 1:
                position %= cycle
            while position >= cycle:
                position -= cycle
                cycle *= self.cycle_factor
        else:
            cycle = steps
        return (
            self.lr_end + (self.lr - self.lr_end) * (1 + math.cos(math.pi * position / cycle)) / 2
        )
