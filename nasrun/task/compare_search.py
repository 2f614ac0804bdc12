"""Searches of ``nasrun compare``: many short ones, without a supernet or repeated scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nasrun.budget.candidates import Candidates
from nasrun.errors import UserError
from nasrun.evaluator.base import Scorer
from nasrun.evaluator.rank_noise import RankNoise
from nasrun.report.comparison import BestSoFar, SearchRecord
from nasrun.run.monitor import NullMonitor
from nasrun.run.run import Run
from nasrun.search_algo.base import SearchAlgo
from nasrun.search_space.base import SearchSpace
from nasrun.streams import Streams
from nasrun.task.scoring import Scores, score_all
from nasrun.values import Architecture, Trial


class ScoredOnce:
    """Scores of one scorer, each computed once for all searches of the run.

    So an interrupted search is repeated from its start, with the same result, and takes no time up
    to the place of the interruption.
    """

    def __init__(self, scorer: Scorer, scores: Scores, run: Run, role: str) -> None:
        """Take known scores from ``scores``. role: ``score`` or ``truth``, for trials.jsonl."""
        self.scorer, self.run, self.role = scorer, run, role
        self.trials = scores.trials_of(role)
        self.known = {trial.architecture: trial for trial in self.trials}

    def trial_of(self, architecture: Architecture) -> Trial:
        """Return the score; raises UserError if it is not finite (see ``on_nonfinite``)."""
        if architecture not in self.known:
            (trial,) = score_all(self.scorer, [architecture], self.trials, self.run, role=self.role)
            self.known[architecture] = trial
        return self.known[architecture]


class NoisyScores:
    """Scores of one seed's searches, with noise; the scores without it are computed once."""

    def __init__(self, scores: ScoredOnce, noisy: Mapping[Architecture, float]) -> None:
        self.scores, self.noisy, self.run = scores, noisy, scores.run

    def trial_of(self, architecture: Architecture) -> Trial:
        """Return the noisy score; raises UserError if the table lacks the architecture."""
        trial = self.scores.trial_of(architecture)
        return replace(trial, score=self.noisy[architecture])


class ScoresOfSeeds:
    """The scores by which the searches of each seed go: the same for all, or with noise.

    tau: Kendall's tau of the noisy scores with those without noise; None: no noise.
    """

    def __init__(self, scores: ScoredOnce, noise: RankNoise | None, tau: float | None) -> None:
        self.scores, self.noise, self.tau = scores, noise, tau

    def of(self, seed: int) -> ScoredOnce | NoisyScores:
        """Return the scores of a seed."""
        if self.noise is None or self.tau is None:
            return self.scores
        return NoisyScores(self.scores, self.noise.scores(self.tau, Streams(seed)))


class Searches:
    """The finished searches of each algorithm, seed by seed."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.done: dict[str, list[SearchRecord]] = {}

    def searches_of(self, name: str) -> list[SearchRecord]:
        return self.done.setdefault(name, [])

    def state_dict(self) -> dict[str, Any]:
        return {
            name: [_to_json(search) for search in searches] for name, searches in self.done.items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the searches of a checkpoint.

        Raises UserError if an architecture is not in the search space, ValueError if a search does
        not begin with its first evaluation.
        """

        def found(evaluation: int, choices: list[int], score: float, truth: float) -> BestSoFar:
            architecture = self.space.check(Architecture(self.space.name, tuple(choices)))
            return BestSoFar(int(evaluation), architecture, float(score), float(truth))

        self.done = {
            name: [
                SearchRecord(int(seed), int(evaluations), tuple(found(*step) for step in steps))
                for seed, evaluations, steps in searches
            ]
            for name, searches in state.items()
        }
        for searches in self.done.values():
            if not all(search.found and search.found[0].evaluation == 1 for search in searches):
                raise ValueError("a search without its first architecture")


def _to_json(search: SearchRecord) -> list[Any]:
    steps = [[f.evaluation, list(f.architecture.choices), f.score, f.truth] for f in search.found]
    return [search.seed, search.evaluations, steps]


class SilentMonitor(NullMonitor):
    """A monitor of one of many searches: shows no progress, but lets the run stop."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def safe_point(self) -> None:
        self.run.poll()

    def poll(self) -> None:
        self.run.poll()


def search_once(
    algo: SearchAlgo,
    candidates: Candidates,
    seed: int,
    scores: ScoredOnce | NoisyScores,
    truth: ScoredOnce,
    evaluations: int,
) -> SearchRecord:
    """Search as ``nasrun search seed=SEED`` does, for ``evaluations`` distinct architectures.

    Repeated requests of an algorithm (NAO, search_algo.rescore=pool) are answered, but not counted.
    Of equal scores the first one stays the best.
    """
    search = algo.bind(candidates, Streams(seed).sub("search_algo"), scores.run.compute.device)
    counted: set[Architecture] = set()
    found: list[BestSoFar] = []
    while len(counted) < evaluations and search.next_round(SilentMonitor(scores.run)):
        while len(counted) < evaluations and (architectures := search.ask()):
            for architecture in architectures[: evaluations - len(counted)]:
                counted.add(architecture)
                trial = scores.trial_of(architecture)
                if not found or trial.score > found[-1].score:
                    true = truth.trial_of(architecture).score
                    found.append(BestSoFar(len(counted), architecture, trial.score, true))
                search.tell([trial])
                scores.run.poll()
    if not found:
        raise UserError(f"search_algo {type(algo).__name__} has found nothing to score")
    return SearchRecord(seed, len(counted), tuple(found))
