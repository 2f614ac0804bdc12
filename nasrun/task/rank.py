"""``nasrun rank``: how truly a supernet ranks architectures, against a ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nasrun.errors import UserError
from nasrun.evaluator.base import Evaluator
from nasrun.metrics.bootstrap import Estimate
from nasrun.metrics.report import RankReport, compare, noise_ceiling
from nasrun.report.health import say_health
from nasrun.report.ranking import (
    RankedArchitectures,
    plot_ranking,
    ranking_result,
    say_ranking,
    write_ranking,
)
from nasrun.run.layout import RANKING_TABLE
from nasrun.run.run import Run
from nasrun.search_space.base import Supernet
from nasrun.task.ground_truth import GroundTruth, Scores
from nasrun.task.health import HealthReport
from nasrun.task.rank_also import Also
from nasrun.task.rank_parts import Rank
from nasrun.task.scoring import SameImages, ScoresByEpoch
from nasrun.task.search import checked, start_supernet, train_watched
from nasrun.task.setup import Setup
from nasrun.trainer.training import Training
from nasrun.values import Architecture, Cost, Problem


def rank(setup: Setup, run: Run, weights: Path | None = None) -> dict[str, Any]:
    """Train a supernet, or take the ``weights`` of one, score, compare; what is in result.json."""
    wanted = setup.rank
    if wanted is None:
        raise UserError("rank has no settings: the task is nasrun rank")
    space = setup.search_space
    splits = setup.load(run.compute.device)
    setup.check_gates()
    architectures = wanted.architectures.choose(
        space, splits.problem, run.streams.numpy("architectures")
    )
    if len(architectures) < 3:
        raise UserError(f"a ranking needs three architectures at least, not {len(architectures)}")
    if not setup.evaluator.needs_supernet:
        raise UserError("evaluator: rank measures the scores of a supernet (supernet or kl)")
    truth = GroundTruth(
        wanted.truth, wanted.truth_seeds, Path(wanted.truth_store), truth_config(run.config)
    )
    truth.start(space, splits, run)
    setup.evaluator.start(space, splits, run.compute, run.streams)
    also = Also.over(wanted, space, splits, run)
    health = None
    if setup.health is not None and weights is None:
        health = HealthReport(setup.health, space, splits, run)
    training = start_supernet(setup, run, splits, rounds=1, health=health)
    epochs = [epoch for epoch in wanted.epochs if epoch < setup.trainer.epochs]
    epochs.append(setup.trainer.epochs)
    if weights is not None:
        run.load_weights(weights, training.network)
        # Before the run begins: once it has, only its own directory is read.
        run.save_weights("supernet", training.network)
        epochs = [0]
    run.begin()
    scores = ScoresByEpoch()
    run.keep("images", SameImages(splits))
    run.keep("scores", scores)
    if also is not None:
        run.keep("also", also.scores)
    if weights is None:
        run.keep("supernet", training)
    if health is not None:
        run.keep("health", health)
    ways = [("score", setup.evaluator, scores)]
    if also is not None:
        ways.append(("also", also.evaluator, also.scores))
    for epoch in epochs:
        left = [way for way in ways if len(way[2].of(epoch)) < len(architectures)]
        if left and weights is None:  # a run that is continued may no longer have this supernet
            train_to(setup, run, splits.problem, training, epoch, health)
        for name, evaluator, found in left:
            stage = f"{name}/epoch{epoch}"
            score(evaluator, run, architectures, training.network, stage, epoch, found.of(epoch))
    run.drop("supernet")
    true_scores = truth.scores(architectures)
    costs = [space.cost(one, splits.problem, truth.scale) for one in architectures]
    if health is not None:
        say_health(run, health.summary())
    return report(setup, run, wanted, architectures, costs, scores, true_scores, epochs, also)


def truth_config(config: Any) -> dict[str, Any]:
    """What the accuracy of a stand-alone network depends on, out of the whole configuration."""
    truth = {**config["rank"]["truth"]}
    if isinstance(truth.get("trainer"), dict):
        truth["trainer"] = {k: v for k, v in truth["trainer"].items() if k != "log_every"}
    return {"search_space": config["search_space"], "truth": truth}


def train_to(
    setup: Setup,
    run: Run,
    problem: Problem,
    training: Training[Supernet],
    epoch: int,
    health: HealthReport | None,
) -> None:
    """Train until ``epoch`` epochs are done, and put the weights where anyone may have them."""
    if training.done or training.step >= epoch * training.steps_per_epoch:
        if health is not None:  # it may have been stopped just before
            health.measure(training, 0, epoch)
        training.rest()
        return
    gates = setup.gates(problem, None, run.streams, training.steps_per_epoch)
    train_watched(run, training, 0, gates, health, until=epoch)
    run.save_weights("supernet", training.network)
    run.checkpoint()  # scoring may leave the supernet's statistics changed


def score(
    evaluator: Evaluator,
    run: Run,
    architectures: Sequence[Architecture],
    supernet: Supernet,
    stage: str,
    epoch: int,
    scores: list[float],
) -> None:
    """The supernet's scores of all architectures that have none yet."""
    with run.stage(stage, len(architectures)) as shown:
        shown.advance(len(scores))
        left = list(architectures[len(scores) :])
        for trial in checked(evaluator, left, supernet, run):
            scores.append(trial.score)
            run.record([trial], epoch=epoch)
            shown.advance(1)
            run.safe_point()


def report(
    setup: Setup,
    run: Run,
    wanted: Rank,
    architectures: Sequence[Architecture],
    costs: Sequence[Cost],
    scores: ScoresByEpoch,
    true_scores: Scores,
    epochs: Sequence[int],
    also: Also | None,
) -> dict[str, Any]:
    """Compare, write the tables and pictures, and say what came out."""
    ranked = RankedArchitectures(
        [setup.search_space.write(architecture) for architecture in architectures],
        np.array([cost.params for cost in costs]),
        np.array([cost.macs for cost in costs]),
        true_scores,
    )
    columns = {f"score_{epoch}": scores.of(epoch) for epoch in epochs}
    if also is not None:
        columns |= {f"also_{epoch}": also.scores.of(epoch) for epoch in epochs}
    ranked.write_table(run, columns)
    truth = ranked.truth
    reports: dict[int, RankReport] = {}
    for epoch in epochs:
        try:
            reports[epoch] = compare(
                scores.of(epoch),
                truth,
                params=ranked.params,
                macs=ranked.macs,
                labels=ranked.names,
                top_shares=(wanted.top,),
                ks=(1, wanted.k),
                resamples=wanted.resamples,
                confidence=wanted.confidence,
                rng=run.streams.numpy("bootstrap", epoch),
            )
        except UserError as error:  # all tied, as a supernet is that has learned nothing yet
            if epoch == epochs[-1]:
                raise UserError(
                    f"{error}; what was measured is in {run.directory / RANKING_TABLE}"
                ) from None
            run.say(f"no ranking after {epoch} epochs: {error}", "yellow")
    ceiling: dict[str, Estimate] = {}
    if len(true_scores) > 1:
        ceiling = noise_ceiling(
            list(true_scores),
            resamples=min(wanted.resamples, 200),
            confidence=wanted.confidence,
            rng=run.streams.numpy("ceiling"),
        )
    second = also.compare(scores, truth, epochs, wanted, run.streams) if also is not None else None
    write_ranking(run, reports, ceiling, second)
    last = scores.of(epochs[-1])
    plot_ranking(run, reports, last, truth, ranked.params)
    if second is not None:
        second.plot(run, last, truth, ranked.params)
    result = run.finish(ranking_result(reports[epochs[-1]], ceiling, last, truth, second))
    say_ranking(run, reports, ceiling)
    if second is not None:
        second.say(run)
    return result
