"""The settings of a training, which supernets and stand-alone networks share."""

from __future__ import annotations

from typing import Any, ClassVar

from nasrun.dataset.base import Split
from nasrun.run.compute import Compute
from nasrun.streams import Streams
from nasrun.trainer.settings import TrainerSettings
from nasrun.trainer.step_rules import StepRules
from nasrun.trainer.training import NetworkT, Training


class Trainer(TrainerSettings):
    """The settings of a training; ``bind`` applies them to a network.

    training_type: class of the trainings.
    """

    training_type: ClassVar[type[Training[Any]]] = Training

    def bind(
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
        """Return the training of ``network``, in ``rounds`` rounds of ``epochs`` epochs each.

        first_round: the first round of this network, if it was made anew after earlier rounds.
        rules: rules of supernet training; None: a step has a single path and one momentum.
        """
        rules = rules or StepRules()
        return self.training_type(
            self, network, split, compute, streams, rounds, first_round, rules
        )
