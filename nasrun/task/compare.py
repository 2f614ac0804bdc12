"""``nasrun compare``: search algorithms over many seeds, without a supernet."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

from pydantic import Field

from nasrun.architectures.samples import MAX_LISTED_ARCHITECTURES
from nasrun.budget.candidates import Candidates
from nasrun.dataset.base import Splits
from nasrun.errors import MissingCapabilityError, UserError
from nasrun.evaluator.base import Evaluator, Scorer, needs_no_supernet
from nasrun.evaluator.rank_noise import RankNoise, Tau
from nasrun.evaluator.table import TableEvaluator
from nasrun.limits import Count
from nasrun.report.comparison import Comparison, SearchRecord, plot_comparison, say_comparison
from nasrun.report.regret_by_tau import RegretByTau
from nasrun.run.layout import LATENCIES
from nasrun.run.run import Run
from nasrun.run.stages import PlannedStage
from nasrun.search_algo.base import SearchAlgo
from nasrun.search_space.base import SearchSpace
from nasrun.task.base import Task
from nasrun.task.compare_search import ScoredOnce, ScoresOfSeeds, Searches, search_once
from nasrun.task.scoring import SameImages, Scores
from nasrun.task.setup import Setup
from nasrun.values import Architecture

Seeds = Annotated[int, Field(ge=2, le=100_000)]


class CompareTask(Task):
    """Compare search algorithms over many seeds, by scores that need no supernet.

    algorithms: by name, as in the tables. control: name of the algorithm that all others are tested
    against.
    evaluations: distinct architectures that each search may have scored.
    seeds: searches of each algorithm, from the run's seed upwards. fewer_seeds: smaller numbers for
    slow algorithms, by name.
    truth: the evaluator that judges the best architectures; None: their scores in the search do.
    resamples, confidence: settings of the bootstrap intervals over seeds.
    taus: Kendall's tau of noisy scores with those of the evaluator, rising: all searches are done
    at each of them; None: the scores as they are.
    """

    settings = "compare"

    def __init__(
        self,
        *,
        algorithms: dict[str, SearchAlgo],
        control: str,
        evaluations: Count,
        seeds: Seeds,
        fewer_seeds: dict[str, Seeds],
        resamples: Annotated[int, Field(ge=0, le=1_000_000)],
        confidence: Annotated[float, Field(gt=0, lt=1)],
        truth: Evaluator | None = None,
        taus: Annotated[list[Tau], Field(min_length=1, max_length=100)] | None = None,
    ) -> None:
        for key, name in [("control", control), *(("fewer_seeds", name) for name in fewer_seeds)]:
            if name not in algorithms:
                raise UserError(
                    f"compare.{key}: {name} is none of the algorithms, which are "
                    f"{', '.join(algorithms)}"
                )
        if control in fewer_seeds:
            raise UserError(
                f"compare.fewer_seeds.{control}: it is the control, which needs all of the seeds"
            )
        if taus is not None and sorted(set(taus)) != taus:
            raise UserError(f"compare.taus={taus}: must rise from each to the next")
        self.algorithms = algorithms
        self.control = control
        self.evaluations = evaluations
        self.resamples = resamples
        self.confidence = confidence
        self.truth, self.taus = truth, taus
        self.seeds = {name: min(fewer_seeds.get(name, seeds), seeds) for name in algorithms}

    def check(self, space: SearchSpace) -> None:
        """Raise UserError if an algorithm has no meaning in ``space`` or needs a supernet."""
        for name, algo in self.algorithms.items():
            if algo.learns_gates:
                raise UserError(
                    f"compare.algorithms.{name}: {type(algo).__name__} learns while a supernet "
                    f"trains, and compare trains none; leave it out: ~compare.algorithms.{name}. "
                    "Such methods are compared, a table in the place of the winner's training, by "
                    "nasrun search -m experiment=shootout_supernets_nas_bench_201"
                )
            algo.check(space)

    def stages(self, setup: Setup, splits: Splits) -> list[PlannedStage]:
        """Plan the searches of each algorithm, at each tau."""
        suffixes = [""] if self.taus is None else [f"/tau{tau}" for tau in self.taus]
        return [
            PlannedStage(f"compare/{name}{suffix}", seeds, "searches")
            for suffix in suffixes
            for name, seeds in self.seeds.items()
        ]

    def run(self, setup: Setup, run: Run, source: Path | None) -> dict[str, Any]:
        """Search with each algorithm from each seed, judge the results and compare them."""
        space, judge = setup.search_space, self.truth or setup.evaluator
        for key, evaluator in (
            ("evaluator", setup.evaluator),
            ("evaluator@compare.truth", judge),
        ):
            if evaluator.needs_supernet:
                raise MissingCapabilityError(
                    f"{key}: compare trains no supernet, so it takes only scores that need none",
                    group=key,
                    has=needs_no_supernet,
                )
            if isinstance(evaluator, TableEvaluator) and evaluator.tau < 1:
                raise UserError(
                    f"tau={evaluator.tau:g} of {key}: one seed's noise says nothing of others; "
                    f"compare adds noise for each seed by itself: compare.taus=[{evaluator.tau:g}]"
                )
        self.check(space)
        splits = setup.load(run)
        latencies = setup.budget.latency.bind(
            space, splits.problem, run.compute, run.screen, run.directory / LATENCIES
        )
        candidates = setup.budget.bind(space, splits.problem, latencies, run.screen)
        for algo in (
            self.algorithms.values()
        ):  # raises UserError now if an algorithm does not fit the space
            algo.bind(candidates, run.streams.sub("search_algo"), run.compute.device)
        scorer = judging = setup.evaluator.bind(space, splits, run.compute, run.streams)
        if judge is not setup.evaluator:
            judging = judge.bind(space, splits, run.compute, run.streams)
        check_complete("evaluator", scorer, candidates)
        check_complete("compare.truth", judging, candidates)
        noise = None if self.taus is None else RankNoise(known_scores(scorer))
        run.expect(self.stages(setup, splits))
        run.begin()
        latencies.keep(run.directory / LATENCIES)
        store, searches = Scores(space), Searches(space)
        run.keep("images", SameImages(splits))
        run.keep("scores", store)
        run.keep("searches", searches)
        scores = ScoredOnce(scorer, store, run, "score")
        truth = scores if judging is scorer else ScoredOnce(judging, store, run, "truth")

        def compared(tau: float | None = None) -> Comparison:
            suffix = "" if tau is None else f"/tau{tau}"
            done = {name: searches.searches_of(name + suffix) for name in self.algorithms}
            by = ScoresOfSeeds(scores, noise, tau)
            for name, records in done.items():
                search_all(name, suffix, self, candidates, by, truth, records)
            return Comparison.between(
                done,
                control=self.control,
                evaluations=self.evaluations,
                best=best_of(judging, candidates),
                resamples=self.resamples,
                confidence=self.confidence,
                streams=run.streams,
            )

        if self.taus is not None:
            by_tau = RegretByTau({tau: compared(tau) for tau in self.taus})
            by_tau.write(run)
            result = run.finish(by_tau.result())
            by_tau.say(run)
            return result
        comparison = compared()
        comparison.write(run.directory, space)
        plot_comparison(run, comparison)
        result = run.finish(comparison.result())
        say_comparison(run, comparison)
        return result


def search_all(
    name: str,
    suffix: str,
    task: CompareTask,
    candidates: Candidates,
    scores: ScoresOfSeeds,
    truth: ScoredOnce,
    done: list[SearchRecord],
) -> None:
    """Do the searches of one algorithm that are not yet done; suffix: of the stage's name."""
    run, algo, seeds = truth.run, task.algorithms[name], task.seeds[name]
    with run.stage(f"compare/{name}{suffix}", seeds) as stage:
        stage.advance(len(done))
        for seed in range(run.streams.seed + len(done), run.streams.seed + seeds):
            by = scores.of(seed)
            record = search_once(algo, candidates, seed, by, truth, task.evaluations)
            done.append(record)
            stage.advance(score=record.found[-1].score, truth=record.found[-1].truth)
            run.safe_point()


def known_scores(scorer: Scorer) -> dict[Architecture, float]:
    """Return the scores that noise is added to; raises UserError if they are not all known."""
    published = scorer.published_scores
    if published is None:
        raise UserError(
            "compare.taus: noise exchanges the scores of all architectures, so these must be "
            "known: evaluator=table"
        )
    return {architecture: fmean(seeds) for architecture, seeds in published.items()}


def check_complete(key: str, scorer: Scorer, candidates: Candidates) -> None:
    """Raise UserError if a table lacks architectures within the budget; key: its setting."""
    published, space = scorer.published_scores, candidates.space
    if published is None or len(published) == space.size:
        return
    if space.size <= MAX_LISTED_ARCHITECTURES:
        allowed = [each for each in space.every() if candidates.allows(each)]
        missing = [each for each in allowed if each not in published]
        count, lacking = len(allowed), len(missing)
        example = f", e.g. {space.write(missing[0])}" if missing else ""
    elif candidates.bounds:
        return  # too many to be counted; a search that asks for a missing one stops
    else:
        count, lacking, example = space.size, space.size - len(published), ""
    if lacking:
        raise UserError(
            f"{key}: the table has no score for {lacking:,} of the {count:,} architectures of "
            f"{space.name}{' within the budget' if candidates.bounds else ''}{example}; searches "
            "may ask for any of them, so compare needs all"
        )


def best_of(judge: Scorer, candidates: Candidates) -> float | None:
    """Return the best published score within the budget; None if none are published."""
    published = judge.published_scores
    if published is None:
        return None
    allowed = (
        seeds for architecture, seeds in published.items() if candidates.allows(architecture)
    )
    return max(map(fmean, allowed), default=None)
