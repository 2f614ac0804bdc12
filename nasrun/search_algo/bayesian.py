"""Bayesian optimisation by Optuna: a model of the scores proposes what is scored next.

Optuna is an extra: ``pip install 'nasrun[bayesian]'``.
"""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from nasrun.budget.candidates import Candidates
from nasrun.errors import UserError
from nasrun.limits import Count
from nasrun.run.state import whole_number
from nasrun.search_algo.counted import CountedAlgo, CountedSearch
from nasrun.search_algo.nao.epd_training import one_thread
from nasrun.streams import Streams
from nasrun.values import Architecture

MAX_FRUITLESS_PROPOSALS = 10
"""After so many proposals in a row without a new architecture a random one is scored."""

OUTSIDE = 0.0
"""Score that the model is told of proposals outside the budget, the lowest that there is."""


@dataclass(frozen=True, kw_only=True)
class Bayesian(CountedAlgo):
    """Bayesian optimisation over the decisions of any space, each of them categorical.

    evaluations: architectures scored in all.
    startup: random architectures at first.
    model: ``tpe``: tree-structured Parzen estimators (Bergstra et al., NeurIPS 2011); ``gp``: a
    Gaussian process and the logarithm of the expected improvement.
    multivariate: whether the estimators of ``tpe`` are joint ones; otherwise each decision has one.
    proposals: samples of an estimator, the most promising of which is proposed; ``tpe`` alone.
    """

    startup: Count
    model: Literal["tpe", "gp"]
    multivariate: bool
    proposals: Annotated[int, Field(gt=0, le=10_000)]

    def __post_init__(self) -> None:
        self.require_rest("startup", "be proposed")

    def bind(self, candidates: Candidates, streams: Streams, device: torch.device) -> Proposals:
        """Make the search; raises UserError if Optuna is not installed, or too old."""
        return Proposals(self, candidates, streams)


def load_optuna(model: str) -> Any:
    """Import Optuna, which then says nothing; raises UserError if it is absent or has no model."""
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            "search_algo=bayesian needs the package optuna: pip install 'nasrun[bayesian]', or "
            "take search_algo=local_search or regularized_evolution"
        ) from error
    if model == "gp" and not hasattr(optuna.samplers, "GPSampler"):
        raise UserError(
            f"search_algo.model=gp: optuna {optuna.__version__} has no Gaussian processes, version "
            "3.6 does (hydra-optuna-sweeper needs an older one): take search_algo.model=tpe"
        )
    optuna.logging.set_verbosity(logging.ERROR)
    # Old versions warn of everything that is used here.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


class Proposals(CountedSearch):
    """The search of ``Bayesian``.

    observed: in order, the choices that the model has seen and the score of each; the model is made
    of them alone, so that they are its whole state. heard: number of scored architectures of the
    pool among them. proposal: the choices that wait for their score; None: the startup does.
    """

    algo: Bayesian

    def __init__(self, algo: Bayesian, candidates: Candidates, streams: Streams) -> None:
        super().__init__(algo, algo.startup, candidates, streams)
        self.optuna = load_optuna(algo.model)
        self.observed: list[tuple[tuple[int, ...], float]] = []
        self.heard = 0
        self.proposal: tuple[int, ...] | None = None
        options = self.optuna.distributions.CategoricalDistribution
        self.ranges = {
            decision.name: options(range(len(decision.options)))
            for decision in self.space.decisions
        }
        self._study = self._new_study()
        self._trial: Any = None  # of the proposal, if this process has made it

    @one_thread()
    def step(self) -> None:
        """Let the model propose until something new is within the budget; else sample it."""
        for scored in list(self.pool.trials)[self.heard :]:
            self._observe(self.proposal or scored.choices, self.trial(scored).score)
            self.heard += 1
        for _ in range(MAX_FRUITLESS_PROPOSALS):
            self._study.sampler = self._sampler(len(self.observed))
            self._trial = self._study.ask(self.ranges)
            self.proposal = tuple(int(self._trial.params[name]) for name in self.ranges)
            rng = self.streams.numpy("mend", len(self.observed))
            architecture = self.space.repair(Architecture(self.space.name, self.proposal), rng)
            form = self.space.canonical(architecture)
            if not self.candidates.allows(architecture):
                self._observe(self.proposal, OUTSIDE)
            elif form in self.known:
                self._observe(self.proposal, self.trial(self.known[form]).score)
            else:
                self.add({form: architecture})
                self.pool.made(architecture, self.algo.model, [])
                return
        self.sample(len(self.observed), 1)

    def _observe(self, choices: tuple[int, ...], score: float) -> None:
        """Tell the model a score, of the proposal or of choices that were not proposed."""
        self.observed.append((choices, score))
        self.proposal = None
        if self._trial is not None:
            self._study.tell(self._trial, score)
            self._trial = None
        else:
            self._study.add_trial(self._told(choices, score))

    def _told(self, choices: tuple[int, ...], score: float) -> Any:
        """Return a finished trial of Optuna's."""
        params = dict(zip(self.ranges, choices, strict=True))
        return self.optuna.trial.create_trial(params=params, distributions=self.ranges, value=score)

    def _sampler(self, number: int) -> Any:
        """Make the sampler of a proposal, with a seed of its own, so that it has no state."""
        samplers, seed = self.optuna.samplers, self.streams.key("propose", number) % 2**32
        if self.algo.model == "gp":
            return samplers.GPSampler(seed=seed, n_startup_trials=0)
        return samplers.TPESampler(
            seed=seed,
            n_startup_trials=0,
            n_ei_candidates=self.algo.proposals,
            multivariate=self.algo.multivariate,
        )

    def _new_study(self) -> Any:
        return self.optuna.create_study(direction="maximize")

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "observed": [[list(choices), score] for choices, score in self.observed],
            "heard": self.heard,
            "proposal": self.proposal and list(self.proposal),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.observed = [
            (self._read(choices), float(score)) for choices, score in state["observed"]
        ]
        if not all(math.isfinite(score) for _, score in self.observed):
            raise ValueError("the model was told a score that is not finite")
        self.heard = whole_number(state["heard"], most=len(self.pool.trials))
        self.proposal = None if state["proposal"] is None else self._read(state["proposal"])
        self._study, self._trial = self._new_study(), None
        for choices, score in self.observed:
            self._study.add_trial(self._told(choices, score))

    def _read(self, choices: list[int]) -> tuple[int, ...]:
        """Return the choices of a state; raises ValueError if a decision has no such option."""
        for decision, choice in zip(self.space.decisions, choices, strict=True):
            whole_number(choice, most=len(decision.options) - 1)
        return tuple(choices)
