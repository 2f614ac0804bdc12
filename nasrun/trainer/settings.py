"""Settings of a training; imports no module that carries it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from nasrun.errors import UserError
from nasrun.limits import Count, Strength
from nasrun.trainer.schedule import Schedule

Keep = Annotated[float, Field(gt=0, le=1)]
"""A probability of keeping; 1 switches the noise off."""


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """The settings of a training; units and sources of the fields stand in ``conf/trainer``."""

    epochs: Count
    batch_size: Annotated[Count, Field(ge=2)]
    schedule: Schedule
    momentum: Annotated[float, Field(ge=0, lt=1)]
    nesterov: bool
    weight_decay: Strength
    decay_norm_and_bias: bool
    clip: Strength
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    dropout_keep: Keep
    drop_path_keep: Keep
    auxiliary_weight: Strength
    cutout: Annotated[int, Field(ge=0, le=4096)]
    log_every: Count
    clip_value: Strength = 0.0
    idle_options: Literal["freeze", "coast"] = "freeze"

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise UserError("nesterov=true needs a momentum above 0")
        if self.idle_options == "coast" and self.momentum == 0:
            raise UserError(
                "idle_options=coast needs a momentum above 0, which tells what has been trained"
            )

    @property
    def auxiliary(self) -> bool:
        """Whether the network needs its auxiliary head."""
        return self.auxiliary_weight > 0
