"""The reward of an architecture: its score, weighed by a cost of its network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from nasrun.limits import Amount

Exponent = Annotated[float, Field(ge=-100, le=0)]

SMALLEST_RATIO = 1e-9
"""Lower bound of cost / target, whose power is finite."""


class Reward(BaseModel):
    """The reward score · (cost / target)^w of MnasNet (Tan et al., CVPR 2019, Eq. 2 and 3).

    cost: a cost of the final network; none: the reward is the score.
    target: T, single parameters, multiply-adds or bit-operations, or milliseconds.
    within, beyond: the exponent w where cost <= T, and where it is larger. Equal ones are the soft
    bound of the paper, 0 and a large negative one its hard bound.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cost: Literal["none", "params", "macs", "bitops", "latency_ms"]
    target: Annotated[Amount, Field(gt=0, allow_inf_nan=False)]
    within: Exponent
    beyond: Exponent

    def of(self, score: float, cost: float) -> float:
        """Return the reward of a network with that score in [0, 1] and that cost."""
        if self.cost == "none":
            return score
        ratio = max(cost / self.target, SMALLEST_RATIO)
        return float(score * ratio ** (self.within if ratio <= 1 else self.beyond))
