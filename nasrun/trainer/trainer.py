"""The one recipe for training supernets and stand-alone networks alike."""

from __future__ import annotations

from nasrun.dataset.base import Split
from nasrun.run.compute import Compute
from nasrun.streams import Streams
from nasrun.trainer.settings import TrainerSettings
from nasrun.trainer.step_rules import StepRules
from nasrun.trainer.training import NetworkT, Training


class Trainer(TrainerSettings):
    """The settings of a training, and the way to apply them to a network."""

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

        first_round: the round before which the network has been made anew.
        rules: of a supernet; None: a step has a single path and one momentum.
        """
        rules = rules or StepRules()
        return Training(self, network, split, compute, streams, rounds, first_round, rules)
