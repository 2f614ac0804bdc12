"""How a network is trained: one recipe for supernets and stand-alone networks alike."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nasrun.dataset.base import Split
from nasrun.errors import UserError
from nasrun.limits import Count, Strength
from nasrun.run.compute import Compute
from nasrun.streams import Streams
from nasrun.trainer.schedule import Schedule
from nasrun.trainer.step_rules import StepRules
from nasrun.trainer.training import NetworkT, Training

Keep = Annotated[float, Field(gt=0, le=1)]
"""A probability of keeping; 1 switches the noise off."""


class Trainer:
    """How a network is trained; units and sources of the arguments stand in ``conf/trainer``."""

    def __init__(
        self,
        *,
        epochs: Count,
        batch_size: Annotated[Count, Field(ge=2)],
        schedule: Schedule,
        momentum: Annotated[float, Field(ge=0, lt=1)],
        nesterov: bool,
        weight_decay: Strength,
        decay_norm_and_bias: bool,
        clip: Strength,
        label_smoothing: Annotated[float, Field(ge=0, lt=1)],
        dropout_keep: Keep,
        drop_path_keep: Keep,
        auxiliary_weight: Strength,
        cutout: Annotated[int, Field(ge=0, le=4096)],
        log_every: Count,
    ) -> None:
        if nesterov and momentum == 0:
            raise UserError("nesterov=true needs a momentum above 0")
        self.epochs = epochs
        self.batch_size = batch_size
        self.schedule = schedule
        self.momentum = momentum
        self.nesterov = nesterov
        self.weight_decay = weight_decay
        self.decay_norm_and_bias = decay_norm_and_bias
        self.clip = clip
        self.label_smoothing = label_smoothing
        self.dropout_keep = dropout_keep
        self.drop_path_keep = drop_path_keep
        self.auxiliary_weight = auxiliary_weight
        self.cutout = cutout
        self.log_every = log_every

    @property
    def auxiliary(self) -> bool:
        """Whether the network needs its auxiliary head."""
        return self.auxiliary_weight > 0

    def start(
        self,
        network: NetworkT,
        split: Split,
        compute: Compute,
        streams: Streams,
        *,
        rounds: int = 1,
        first_round: int = 0,
        rules: StepRules | None = None,
    ) -> Training[NetworkT]:
        """Begin to train ``network``, in ``rounds`` rounds of ``epochs`` epochs each.

        first_round: the round before which the network has been made anew. rules: of a supernet.
        """
        rules = rules or StepRules()
        return Training(self, network, split, compute, streams, rounds, first_round, rules)
