"""Gates learned by gradient descent: the algorithm that the named methods are settings of."""

from __future__ import annotations

from dataclasses import dataclass

from nasrun.budget.candidates import Candidates
from nasrun.search_algo.gates.binary import BinaryGates
from nasrun.search_algo.gates.mixed_gates import MixedGates
from nasrun.search_algo.gates.settings import GateSettings
from nasrun.trainer.gate_learner import GateContext


@dataclass(frozen=True, kw_only=True)
class LearnedGates(GateSettings):
    """DARTS and its heirs, by parts; ``GateSettings`` tells what the settings mean."""

    def make_learner(self, context: GateContext, candidates: Candidates) -> MixedGates:
        learner = BinaryGates if self.relaxation == "binary" else MixedGates
        return learner(self, context, **self.costs(candidates))
