"""The temperature of relaxed choices, which falls while the gates learn."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveFloat

from nasrun.limits import Strength


class Temperature(BaseModel):
    """The temperature by which logits plus noise are divided.

    start: at the first step.
    fall: ``linear``: to ``end`` at the last step (SNAS, GDAS); ``exponential``: start·exp(-rate·t)
    in epoch t = 0, 1, 2 ..., never below ``end`` (FBNet, §3.3: 5·exp(-0.045 t)).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: PositiveFloat
    end: PositiveFloat
    fall: Literal["linear", "exponential"]
    rate: Strength

    def at(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """Return the temperature in ``step`` of a training of ``steps`` steps."""
        if self.fall == "linear":
            return float(self.start + (self.end - self.start) * (step / max(steps - 1, 1)))
        return max(self.start * math.exp(-self.rate * (step // steps_per_epoch)), self.end)
