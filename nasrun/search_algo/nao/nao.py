"""NAO with weight sharing and Balanced NAO: supernet, predictor and gradient ascent in turn.

Each round trains a supernet on a pool of architectures and scores them with it. An
encoder-predictor-decoder learns the scores, and gradient steps from the best architectures give
those of the next round (Luo et al., 2018 and 2019). The sampler makes NAO "balanced". Where scores
are stored once (``rescore`` "new"), those of all rounds are put on one scale: see ``linking``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from nasrun.budget.candidates import Candidates
from nasrun.errors import UserError
from nasrun.limits import Count, Strength
from nasrun.run.memory import check_fits, network_bytes
from nasrun.run.stages import PlannedStage
from nasrun.run.state import whole_number
from nasrun.search_algo.base import Round, SearchAlgo
from nasrun.search_algo.nao.epd import EPD, PredictorSettings
from nasrun.search_algo.nao.epd_training import PredictorTraining, one_thread
from nasrun.search_algo.nao.linking import Linking
from nasrun.search_algo.nao.tokens import Vocabulary
from nasrun.search_algo.pool import ByForm, PoolSearch
from nasrun.streams import Streams
from nasrun.values import Architecture, Trial

StepSize = Annotated[Strength, Field(gt=0)]

Links = Annotated[int, Field(ge=0, le=100_000)]
"""Number of architectures that several rounds have in common."""

MAX_STEP_SIZES = 10_000
"""Upper bound of the step sizes of an ascent; the papers have 50."""


@dataclass(frozen=True, kw_only=True)
class Nao(SearchAlgo):
    """Neural architecture optimisation over any search space.

    rounds: rounds of supernet training.
    initial: random architectures of the first round.
    new_per_round: architectures that each later round adds.
    train_on: the architectures that later supernets train.
    rescore: the architectures that later supernets score.
    replace: whether new architectures replace the worst of the pool.
    seeds: start points of the ascent.
    step_start, step_increment, step_max: step sizes of the ascent, tried in turn until there are
    enough new architectures.
    fresh_supernet: whether later supernets start from new weights.
    anchors: random architectures of the first round that later supernets train and score too, where
    ``rescore`` is "new". By their mean difference the scores of all rounds are put on one scale.
    carried: best architectures of earlier rounds that later supernets train and score too, where
    ``rescore`` is "new". With any, the scores of the last supernet alone choose the winner.
    batch: architectures asked for at once.
    Raises UserError if step_start exceeds step_max, where the steps are too many, and if a new
    supernet would score architectures that it has not trained beside those that it has.
    """

    trains_pool = True

    rounds: Count
    initial: Count
    new_per_round: Count
    train_on: Literal["new", "pool"]
    rescore: Literal["new", "pool"]
    replace: Literal["none", "worst"]
    fresh_supernet: bool
    anchors: Links
    carried: Links
    batch: Count
    seeds: Count
    step_start: StepSize
    step_increment: StepSize
    step_max: StepSize
    predictor: PredictorSettings

    def __post_init__(self) -> None:
        start, most = self.step_start, self.step_max
        if start > most:
            raise UserError(
                f"search_algo.step_start = {start} is larger than search_algo.step_max = "
                f"{most}: no step of the gradient ascent is left"
            )
        if (most - start) / self.step_increment > MAX_STEP_SIZES:
            raise UserError(
                f"search_algo.step_increment = {self.step_increment} makes more than "
                f"{MAX_STEP_SIZES:,} step sizes from {start} to {most}: raise it, or lower "
                "search_algo.step_max"
            )
        if self.fresh_supernet and (self.train_on, self.rescore) == ("new", "pool"):
            raise UserError(
                "search_algo.fresh_supernet=true trains a supernet that knows nothing of "
                "the rounds before: with search_algo.train_on=new it cannot score their "
                "architectures; set search_algo.rescore=new, or search_algo.train_on=pool"
            )

    def scored_in(self, round_: int) -> int:
        if round_ == 0:
            return self.initial
        if self.rescore == "new":
            return self.new_per_round + self.anchors + self.carried
        return self.initial + (self.new_per_round * round_ if self.replace == "none" else 0)

    def stages_before(self, round_: int) -> list[PlannedStage]:
        """Plan the training of the predictor, and the ascent, from the second round on."""
        if round_ == 0:
            return []
        return [
            PlannedStage(f"predictor/round{round_}", self.predictor.epochs, "epochs"),
            PlannedStage(f"architectures/round{round_}", self.new_per_round, "architectures"),
        ]

    def bind(self, candidates: Candidates, streams: Streams, device: torch.device) -> NaoSearch:
        """Make the search; raises UserError if the predictor does not fit the space or memory."""
        vocabulary = Vocabulary(candidates.space)
        self.predictor.steps(vocabulary)  # raises UserError now, not after the first round
        self._check_memory(vocabulary)
        return NaoSearch(self, candidates, streams, device)

    def step_sizes(self) -> list[float]:
        """Return the step sizes of an ascent, in the order in which they are tried."""
        count = int((self.step_max - self.step_start) / self.step_increment + 1e-9) + 1
        return [self.step_start + i * self.step_increment for i in range(count)]

    def _check_memory(self, vocabulary: Vocabulary) -> None:
        """Raise UserError if the predictor or its examples do not fit into the memory."""
        if self.rounds == 1:
            return  # a single round uses no predictor
        weights = network_bytes(lambda: EPD(self.predictor, vocabulary))
        predictor = "search_algo.predictor"
        # For each weight there are a gradient and two numbers of Adam.
        check_fits(
            4 * weights, predictor, f"{predictor}.hidden, {predictor}.embedding or mlp_width"
        )
        examples = (self.initial + self.rounds * self.new_per_round) * self.predictor.expand
        # The choices of an example in Python, and its tokens.
        check_fits(
            examples * (16 * vocabulary.length + 200),
            f"{predictor} with {examples:,} examples",
            f"search_algo.initial, search_algo.new_per_round or {predictor}.expand",
        )


class NaoSearch(PoolSearch):
    """The search of ``Nao``.

    begun: number of rounds that have begun.
    new: number of new architectures of the current round, which are the last ones of the pool.
    filled: number of random ones among the new architectures, round by round.
    common: earlier architectures that the current round trains and scores beside the new ones.
    """

    def __init__(
        self, algo: Nao, candidates: Candidates, streams: Streams, device: torch.device
    ) -> None:
        super().__init__(candidates, streams, algo.batch)
        self.algo, self.device = algo, device
        self.vocabulary = Vocabulary(candidates.space)
        self.begun = self.new = 0
        self.filled: list[int] = []
        self.common: list[Architecture] = []
        self.linking = Linking(self.pool)
        self.predictor: PredictorTraining | None = None

    def begin_round(self) -> Round | None:
        """Return the next round; None also if the space has nothing new to offer."""
        if not self.pool.pending:
            if self.begun > 1 and self.linking.anchors:
                self.monitor.say(self.linking.say())
            if self.begun == self.algo.rounds:
                return None
            found, random = self._first() if self.begun == 0 else self._improve()
            if not found:
                return None
            self._take_in(found, random)
        pool = list(self.pool.trials)
        if self.algo.train_on == "new":
            pool = pool[-self.new :] + self.common
        index = self.begun - 1
        fresh = index == 0 or self.algo.fresh_supernet
        return Round(index, tuple(pool), fresh, evaluations=len(self.pool.pending))

    def tell(self, trials: Sequence[Trial]) -> None:
        super().tell(trials)
        self.linking.take(trials, self.begun - 1)

    def best(self, count: int) -> list[Trial]:
        """Return the best trials: of the last supernet if it has scored the best of all rounds."""
        if self.algo.rescore == "new" and self.algo.carried:
            return self.linking.newest()[:count]
        ranked = (self.pool.trials[one] for one in self.linking.ranked()[:count])
        return [trial for trial in ranked if trial is not None]

    def report(self) -> dict[str, Any]:
        return {"round_offsets": self.linking.report()} if self.linking.anchors else {}

    def state_dict(self) -> dict[str, Any]:
        """Return the state, at any time, also while the predictor trains."""
        return {
            "pool": self.pool.state_dict(),
            "begun": self.begun,
            "new": self.new,
            "filled": list(self.filled),
            "common": [architecture.to_json() for architecture in self.common],
            "linking": self.linking.state_dict(),
            "predictor": None if self.predictor is None else self.predictor.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``; raises UserError or ValueError if it does not fit."""
        self.pool.load_state_dict(state["pool"])
        self.begun = whole_number(state["begun"], most=self.algo.rounds)
        self.new = whole_number(state["new"], most=len(self.pool.trials))
        if self.begun > 0 and self.new == 0:
            raise ValueError("a round without architectures")
        self.filled = list(state["filled"])
        self.common = [self.space.read(architecture) for architecture in state["common"]]
        if not self.pool.trials.keys() >= set(self.common):
            raise ValueError("an architecture of an earlier round is not in the pool")
        self.linking.load_state_dict(state["linking"])
        self.predictor = None
        if state["predictor"] is not None:
            index = whole_number(state["predictor"]["index"], most=self.algo.rounds)
            self.predictor = self._training(index)
            self.predictor.load_state_dict(state["predictor"])

    def _take_in(self, found: ByForm, random: int) -> None:
        """Add the new architectures to the pool, and queue the ones to be scored."""
        ranked = self.linking.ranked()
        if self.algo.rescore == "new":
            best = ranked[: self.algo.carried]
            self.common = list(dict.fromkeys(self.linking.anchors + best))
        if self.begun > 0 and self.algo.replace == "worst":
            kept = set(self.common)
            worst = [architecture for architecture in ranked[::-1] if architecture not in kept]
            self.pool.drop(worst[: len(found)])
        self.pool.add(found)
        if self.algo.rescore == "new":
            self.pool.pending = [*found.values(), *self.common]
            if self.begun == 0:
                self.linking.choose(self.algo.anchors)
        else:
            self.pool.pending = list(self.pool.trials)
        self.begun += 1
        self.new = len(found)
        self.filled.append(random)

    def _first(self) -> tuple[ByForm, int]:
        found: ByForm = {}
        self.pool.sample(self.streams.numpy("random", 0), self.algo.initial, found)
        return found, len(found)

    @one_thread()
    def _improve(self) -> tuple[ByForm, int]:
        """Return architectures from gradient ascent, and the number of random ones among them."""
        algo, model = self.algo, self._trained_predictor().model
        seeds = self.linking.ranked()[: algo.seeds]
        tokens = self.vocabulary.encode(seeds).to(self.device)
        with torch.no_grad():
            encoded = model.encode(tokens)
        found: ByForm = {}
        repairs = self.streams.numpy("repairs", self.begun)
        with self.monitor.stage(f"architectures/round{self.begun}", algo.new_per_round) as stage:
            for step in algo.step_sizes():
                before = len(found)
                decoded = self.vocabulary.decode(model.decode(model.ascend(encoded, step)))
                candidates = [self.space.repair(each, repairs) for each in decoded]
                self.pool.collect(candidates, algo.new_per_round, found)
                sources = dict(zip(candidates[::-1], seeds[::-1], strict=True))  # the first wins
                for new in list(found.values())[before:]:
                    self.pool.made(new, f"gradient ascent, step {step:g}", [sources[new]])
                stage.advance(len(found) - before, step_size=step)
                if len(found) == algo.new_per_round:
                    break
            ascended = len(found)
            rng = self.streams.numpy("random", self.begun)
            self.pool.sample(rng, algo.new_per_round, found)
            random = len(found) - ascended
            stage.advance(random, random=random)
        return found, random

    def _trained_predictor(self) -> PredictorTraining:
        """Return the trained predictor of this round; continues an interrupted training."""
        if self.predictor is None or self.predictor.index != self.begun:
            self.predictor = self._training(self.begun, self.predictor)
        if not self.predictor.done:
            self.predictor.train(self.linking.trials(), self.monitor)
        return self.predictor

    def _training(self, index: int, previous: PredictorTraining | None = None) -> PredictorTraining:
        return PredictorTraining(
            self.algo.predictor, self.vocabulary, self.streams, self.device, index, previous
        )
