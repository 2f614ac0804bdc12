"""The search of NASNet and MnasNet: a controller samples networks and learns from scores.

It works on scores of any evaluator: of a supernet that a sampler has trained, of networks trained
alone, as in the papers, or of a table. Source: Zoph and Le 2017, arXiv 1611.01578; Zoph et al.
2018, arXiv 1707.07012 (PPO); Tan et al. 2019, arXiv 1807.11626 (the reward).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nasrun.budget.candidates import Candidates
from nasrun.limits import Count
from nasrun.run.state import whole_number
from nasrun.search_algo.counted import CountedAlgo, CountedSearch
from nasrun.search_algo.enas.controller import Controller, ControllerSettings, check_controller
from nasrun.search_algo.nao.epd_training import one_thread
from nasrun.search_algo.pool import ByForm
from nasrun.search_algo.reinforce.learning import LearningSettings, PolicyLearning
from nasrun.search_algo.reinforce.reward import Reward
from nasrun.streams import Streams
from nasrun.values import Architecture, Trial

MAX_FRUITLESS_BATCHES = 20
"""The policy may sample so many batches in a row without a new one; then random ones are scored."""

MAX_BATCHES = 1_000_000_000
"""Upper bound of the batches in a state."""


@dataclass(frozen=True, kw_only=True)
class Reinforce(CountedAlgo):
    """Reinforcement learning over the decisions of any space.

    evaluations: distinct architectures that are scored.
    batch: architectures that the policy samples for an update.
    controller: the LSTM that samples them. learning: its steps. reward: what it learns from.

    Nothing is scored twice: an architecture that the policy samples again has the reward that is
    known. Architectures outside the budget have a reward of 0.
    """

    batch: Count
    controller: ControllerSettings
    learning: LearningSettings
    reward: Reward

    def bind(
        self, candidates: Candidates, streams: Streams, device: torch.device
    ) -> ReinforceSearch:
        """Make the search; raises UserError if the controller is too large for the memory.

        Or if the space has no such cost. The controller is small and stays on the CPU.
        """
        check_controller(self.controller, candidates.space)
        return ReinforceSearch(self, candidates, streams)


class ReinforceSearch(CountedSearch):
    """The search of ``Reinforce``.

    choices: [N, D] of the newest batch, as the policy sampled them. members: what they stand for.
    batches: batches so far. fruitless: those at the end that had nothing new.
    """

    algo: Reinforce

    def __init__(self, algo: Reinforce, candidates: Candidates, streams: Streams) -> None:
        super().__init__(algo, algo.batch, candidates, streams)
        with streams.default("controller/init"):
            self.controller = Controller(algo.controller, self.space)
        self.learning = PolicyLearning(self.controller, algo.learning)
        name = algo.reward.cost
        self.measure = None if name == "none" else candidates.measure(name)
        self.choices = torch.zeros(0, len(self.space.decisions), dtype=torch.long)
        self.members: list[Architecture] = []
        self.batches = self.fruitless = 0

    def begin(self) -> None:
        while not self.pool.pending and not self.exhausted:
            self.step()

    @one_thread()
    def step(self) -> None:
        """Learn from the newest batch, and sample the next."""
        if self.members:
            self.learning.update(self.choices, list(map(self._reward, self.members)))
        if self.fruitless < MAX_FRUITLESS_BATCHES:
            self._sample()
        else:
            self._explore()

    def best(self, count: int) -> list[Trial]:
        """Return the trials with the largest rewards, best first."""
        ranked = self.pool.best(len(self.pool.trials))
        if self.measure is not None:
            ranked.sort(key=self._reward_of, reverse=True)
        return ranked[:count]

    def costs(self, trial: Trial) -> dict[str, float]:
        if self.measure is None:
            return {}
        return {self.algo.reward.cost: self.measure(trial.architecture)}

    def _sample(self) -> None:
        """Sample a batch from the policy; what is new of it waits for its score."""
        with torch.no_grad():
            generator = self.streams.torch("policy", self.batches)
            self.choices = self.controller.sample(self.algo.batch, generator).choices
        rng = self.streams.numpy("policy/mend", self.batches)
        self.members = self.controller.architectures(self.choices, rng)
        self.batches += 1
        found: ByForm = {}
        self.pool.collect(self.members, self.left, found)
        self.fruitless = 0 if found else self.fruitless + 1
        self.add(found)
        self._note(found, "policy")

    def _explore(self) -> None:
        """Take random architectures, from which the policy does not learn; end if none is new."""
        self.choices, self.members = self.choices[:0], []
        found = self.sample(self.batches, min(self.algo.batch, self.left))
        if found:
            self.monitor.say(
                f"{MAX_FRUITLESS_BATCHES} batches of the policy had nothing new: {len(found)} "
                "random architectures are scored in their place",
                "yellow",
            )
        self.fruitless = 0
        self._note(found, "random")

    def _note(self, found: ByForm, by: str) -> None:
        for new in found.values():
            self.pool.made(new, by, [])

    def _reward(self, member: Architecture) -> float:
        """Return the reward of a member of the newest batch, 0 outside the budget."""
        scored = self.known.get(self.space.canonical(member))
        trial = None if scored is None else self.pool.trials[scored]
        return 0.0 if trial is None else self._reward_of(trial)

    def _reward_of(self, trial: Trial) -> float:
        cost = 0.0 if self.measure is None else self.measure(trial.architecture)
        return self.algo.reward.of(trial.score, cost)

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "learning": self.learning.state_dict(),
            "choices": self.choices,
            "members": [member.to_json() for member in self.members],
            "batches": self.batches,
            "fruitless": self.fruitless,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.learning.load_state_dict(state["learning"])
        self.members = [self.space.read(member) for member in state["members"]]
        self.choices = self._checked(state["choices"])
        self.batches = whole_number(state["batches"], most=MAX_BATCHES)
        self.fruitless = whole_number(state["fruitless"], most=MAX_FRUITLESS_BATCHES)

    def _checked(self, choices: Tensor) -> Tensor:
        """Return the choices of a state; raises ValueError if they are none of the members."""
        counts = torch.tensor([len(decision.options) for decision in self.space.decisions])
        if choices.shape != (len(self.members), len(counts)) or choices.dtype != torch.int64:
            raise ValueError("the choices of the newest batch are not those of its members")
        if ((choices < 0) | (choices >= counts)).any():
            raise ValueError("a choice of the newest batch is out of range")
        return choices
