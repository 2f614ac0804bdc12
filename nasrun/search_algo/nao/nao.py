"""NAO with weight sharing and Balanced NAO: rounds of supernet, predictor and gradient ascent.

Each round trains a supernet on a pool of architectures and scores them with it; an
encoder-predictor-decoder learns the scores, and a gradient step from the best architectures gives
those of the next round (Luo et al., 2018 and 2019). What makes NAO "balanced" is the sampler.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from nasrun.budget.candidates import Candidates
from nasrun.errors import UserError
from nasrun.limits import Count, Strength
from nasrun.run.memory import check_fits, network_bytes
from nasrun.run.monitor import Monitor
from nasrun.run.state import whole_number
from nasrun.search_algo.base import Round
from nasrun.search_algo.nao.epd import EPD, PredictorSettings
from nasrun.search_algo.nao.epd_training import PredictorTraining, one_thread
from nasrun.search_algo.nao.tokens import Vocabulary
from nasrun.search_algo.pool import Found, Pool, PoolSearch
from nasrun.streams import Streams

StepSize = Annotated[Strength, Field(gt=0)]

MOST_STEPS = 10_000
"""Step sizes of one ascent; the papers have 50."""


class Nao(PoolSearch):
    """Neural architecture optimisation over any search space.

    rounds: rounds of supernet training; initial: random architectures of the first one;
    new_per_round: architectures that each later one adds.
    train_on: what later supernets train. rescore: what is scored with them. replace: whether new
    architectures push the worst out of the pool. fresh_supernet: later supernets start from new
    weights. batch: architectures asked for at once.
    seeds: start points of the ascent; step_start, step_increment, step_max: its step sizes, tried
    in turn until there are enough new architectures.
    Raises UserError where step_start exceeds step_max, or where the steps are too many.
    """

    trains_pool = True

    def __init__(
        self,
        *,
        rounds: Count,
        initial: Count,
        new_per_round: Count,
        train_on: Literal["new", "pool"],
        rescore: Literal["new", "pool"],
        replace: Literal["none", "worst"],
        fresh_supernet: bool,
        batch: Count,
        seeds: Count,
        step_start: StepSize,
        step_increment: StepSize,
        step_max: StepSize,
        predictor: PredictorSettings,
    ) -> None:
        if step_start > step_max:
            raise UserError(
                f"search_algo.step_start = {step_start} is larger than search_algo.step_max = "
                f"{step_max}: no step of the gradient ascent is left"
            )
        if (step_max - step_start) / step_increment > MOST_STEPS:
            raise UserError(
                f"search_algo.step_increment = {step_increment} makes more than {MOST_STEPS:,} "
                f"step sizes from {step_start} to {step_max}: raise it, or lower "
                "search_algo.step_max"
            )
        self.rounds = rounds
        self.initial = initial
        self.new_per_round = new_per_round
        self.train_on = train_on
        self.rescore = rescore
        self.replace = replace
        self.fresh_supernet = fresh_supernet
        self.batch = batch
        self.seeds = seeds
        self.step_start = step_start
        self.step_increment = step_increment
        self.step_max = step_max
        self.settings = predictor

    def start(self, candidates: Candidates, streams: Streams, device: torch.device) -> None:
        """Raises UserError where the predictor's tokens_per_step does not suit the space."""
        self.streams = streams
        self.device = device
        self.pool = Pool(candidates)
        self.vocabulary = Vocabulary(candidates.space)
        self.begun = 0  # rounds
        self.new = 0  # architectures of the current round that are new, at the pool's end
        self.filled: list[int] = []  # random ones among the new, round by round
        self.predictor: PredictorTraining | None = None
        self.settings.steps(self.vocabulary)  # raises now, not after the first round
        self._check_memory()

    def _check_memory(self) -> None:
        """Raises UserError where the predictor or its examples are too large to be trained."""
        if self.rounds == 1:
            return  # without a predictor
        weights = network_bytes(lambda: EPD(self.settings, self.vocabulary))
        predictor = "search_algo.predictor"
        # Adam keeps two more numbers for each weight, and each has a gradient.
        check_fits(
            4 * weights, predictor, f"{predictor}.hidden, {predictor}.embedding or mlp_width"
        )
        examples = (self.initial + self.rounds * self.new_per_round) * self.settings.expand
        # The choices of an example in Python, and its tokens.
        check_fits(
            examples * (16 * self.vocabulary.length + 200),
            f"{predictor} with {examples:,} examples",
            f"search_algo.initial, search_algo.new_per_round or {predictor}.expand",
        )

    def next_round(self, monitor: Monitor) -> Round | None:
        """The next round; the current one again while it has architectures without a score.

        None after the last round, and where the space has nothing new to offer.
        """
        if not self.pool.pending:
            if self.begun == self.rounds:
                return None
            found, random = self._first() if self.begun == 0 else self._improved(monitor)
            if not found:
                return None
            self._begin(found, random)
        pool = list(self.pool.trials)
        if self.train_on == "new":
            pool = pool[-self.new :]
        index = self.begun - 1
        fresh = index == 0 or self.fresh_supernet
        return Round(index, tuple(pool), fresh, evaluations=len(self.pool.pending))

    def state_dict(self) -> dict[str, Any]:
        """May be taken at any time, also while the predictor trains."""
        return {
            "pool": self.pool.state_dict(),
            "begun": self.begun,
            "new": self.new,
            "filled": list(self.filled),
            "predictor": None if self.predictor is None else self.predictor.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises UserError or ValueError where the state is none of this search."""
        self.pool.load_state_dict(state["pool"])
        self.begun = whole_number(state["begun"], most=self.rounds)
        self.new = whole_number(state["new"], most=len(self.pool.trials))
        if self.begun > 0 and self.new == 0:
            raise ValueError("a round without architectures")
        self.filled = list(state["filled"])
        self.predictor = None
        if state["predictor"] is not None:
            index = whole_number(state["predictor"]["index"], most=self.rounds)
            self.predictor = self._training(index)
            self.predictor.load_state_dict(state["predictor"])

    def _begin(self, found: Found, random: int) -> None:
        """Take the new architectures in and line up those to be scored."""
        if self.begun > 0 and self.replace == "worst":
            self.pool.drop_worst(len(found))
        self.pool.add(found)
        self.pool.pending = list(self.pool.trials if self.rescore == "pool" else found.values())
        self.begun += 1
        self.new = len(found)
        self.filled.append(random)

    def _first(self) -> tuple[Found, int]:
        found: Found = {}
        self.pool.sample(self.streams.numpy("random", 0), self.initial, found)
        return found, len(found)

    @one_thread()
    def _improved(self, monitor: Monitor) -> tuple[Found, int]:
        """New architectures from gradient ascent, and how many random ones had to fill up."""
        model = self._trained(monitor).model
        tokens = self.vocabulary.encode(
            [trial.architecture for trial in self.pool.best(self.seeds)]
        ).to(self.device)
        with torch.no_grad():
            encoded = model.encode(tokens)
        found: Found = {}
        repairs = self.streams.numpy("repairs", self.begun)
        with monitor.stage(f"architectures/round{self.begun}", self.new_per_round) as stage:
            for step in self._steps():
                before = len(found)
                decoded = self.vocabulary.decode(model.decode(model.ascend(encoded, step)))
                candidates = [self.pool.space.repair(each, repairs) for each in decoded]
                self.pool.collect(candidates, self.new_per_round, found)
                stage.advance(len(found) - before, step_size=step)
                if len(found) == self.new_per_round:
                    break
            ascended = len(found)
            rng = self.streams.numpy("random", self.begun)
            self.pool.sample(rng, self.new_per_round, found)
            random = len(found) - ascended
            stage.advance(random, random=random)
        return found, random

    def _steps(self) -> list[float]:
        count = int((self.step_max - self.step_start) / self.step_increment + 1e-9) + 1
        return [self.step_start + i * self.step_increment for i in range(count)]

    def _trained(self, monitor: Monitor) -> PredictorTraining:
        """This round's predictor; one that was interrupted goes on where it stopped."""
        if self.predictor is None or self.predictor.index != self.begun:
            self.predictor = self._training(self.begun, self.predictor)
        if not self.predictor.done:
            self.predictor.fit([t for t in self.pool.trials.values() if t is not None], monitor)
        return self.predictor

    def _training(self, index: int, previous: PredictorTraining | None = None) -> PredictorTraining:
        return PredictorTraining(
            self.settings, self.vocabulary, self.streams, self.device, index, previous
        )
