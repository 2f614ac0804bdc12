"""``nasrun compare``: search algorithms against each other over many seeds, without a supernet."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from nasrun.budget.candidates import Candidates
from nasrun.errors import UserError
from nasrun.evaluator.base import Evaluator
from nasrun.evaluator.table import TableEvaluator
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
            raise UserError(
                f"{key}: compare trains no supernet, so it takes only scores that need none: "
                f"{key}=table or {key}=standalone"
            )
    wanted.check(space)
    splits = setup.load(run.compute.device)
    candidates = setup.budget.over(space, splits.problem, run.compute, run.directory / LATENCIES)
    for algo in wanted.algorithms.values():  # what does not fit the space is refused now
        algo.bind(candidates, run.streams.sub("search_algo"), run.compute.device)
    setup.evaluator.start(space, splits, run.compute, run.streams)
    if judge is not setup.evaluator:
        judge.start(space, splits, run.compute, run.streams)
    run.begin()
    setup.budget.latency.keep(run.directory / LATENCIES)
    scores = Scores(setup.evaluator, space, run, "score")
    truth = scores if judge is setup.evaluator else Scores(judge, space, run, "truth")
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
        best=best_of(judge, candidates),
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


def best_of(judge: Evaluator, candidates: Candidates) -> float | None:
    """The best there is within the budget, where a table tells."""
    if not isinstance(judge, TableEvaluator):
        return None
    return max(
        (fmean(seeds) for one, seeds in judge.by_seed.items() if candidates.allows(one)),
        default=None,
    )
