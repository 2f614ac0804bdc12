"""``nasrun compare``: search algorithms against each other over many seeds, without a supernet."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from nasrun.budget.candidates import Candidates
from nasrun.errors import MissingCapabilityError, UserError
from nasrun.evaluator.base import Scorer, needs_no_supernet
from nasrun.report.comparison import Comparison, SearchRecord, plot, say
from nasrun.run.run import Run
from nasrun.task.compare_parts import Compare
from nasrun.task.compare_search import Scores, Searches, one_search
from nasrun.task.scoring import SameImages
from nasrun.task.search import LATENCIES
from nasrun.task.setup import Setup


def compare(setup: Setup, run: Run) -> dict[str, Any]:
    """Search with each algorithm from each seed, judge, compare; returns what is in result.json."""
    wanted = setup.compare
    if wanted is None:
        raise UserError("compare has no settings: the task is nasrun compare")
    space, judge = setup.search_space, wanted.truth or setup.evaluator
    for key, one in (("evaluator", setup.evaluator), ("evaluator@compare.truth", judge)):
        if one.needs_supernet:
            raise MissingCapabilityError(
                f"{key}: compare trains no supernet, so it takes only scores that need none",
                group=key,
                has=needs_no_supernet,
            )
    wanted.check(space)
    splits = setup.load(run.compute.device)
    latencies = setup.budget.latency.bind(
        space, splits.problem, run.compute, run.screen, run.directory / LATENCIES
    )
    candidates = setup.budget.bind(space, splits.problem, latencies, run.screen)
    for algo in wanted.algorithms.values():  # what does not fit the space is refused now
        algo.start(candidates, run.streams.sub("search_algo"), run.compute.device)
    scorer = judge_scorer = setup.evaluator.bind(space, splits, run.compute, run.streams)
    if judge is not setup.evaluator:
        judge_scorer = judge.bind(space, splits, run.compute, run.streams)
    run.begin()
    latencies.keep(run.directory / LATENCIES)
    scores = Scores(scorer, space, run, "score")
    truth = scores if judge_scorer is scorer else Scores(judge_scorer, space, run, "truth")
    searches = Searches(space)
    run.keep("images", SameImages(splits))
    run.keep("scores", scores)
    if truth is not scores:
        run.keep("truth", truth)
    run.keep("searches", searches)
    for name in wanted.algorithms:
        search_all(name, wanted, candidates, scores, truth, searches.of(name))
    comparison = Comparison.of(
        {name: searches.of(name) for name in wanted.algorithms},
        control=wanted.control,
        evaluations=wanted.evaluations,
        best=best_of(judge_scorer, candidates),
        resamples=wanted.resamples,
        confidence=wanted.confidence,
        streams=run.streams,
    )
    comparison.write(run.directory, space)

    plot(run, comparison)
    result = run.finish(comparison.result())
    say(run, comparison)
    return result


def search_all(
    name: str,
    wanted: Compare,
    candidates: Candidates,
    scores: Scores,
    truth: Scores,
    done: list[SearchRecord],
) -> None:
    """The searches of one algorithm that are not yet done."""
    run, algo, seeds = scores.run, wanted.algorithms[name], wanted.seeds[name]
    with run.stage(f"compare/{name}", seeds) as stage:
        stage.advance(len(done))
        for seed in range(run.streams.seed + len(done), run.streams.seed + seeds):
            one = one_search(algo, candidates, seed, scores, truth, wanted.evaluations)
            done.append(one)
            stage.advance(score=one.found[-1].score, truth=one.found[-1].truth)
            run.safe_point()


def best_of(judge: Scorer, candidates: Candidates) -> float | None:
    """Return the best published score within the budget; None where none are published."""
    published = judge.published_scores
    if published is None:
        return None
    allowed = (seeds for one, seeds in published.items() if candidates.allows(one))
    return max(map(fmean, allowed), default=None)
