"""``nasrun rank``: how truly a supernet ranks architectures, against a ground truth."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nasrun.errors import MissingCapabilityError, UserError
from nasrun.evaluator.base import Scorer, scores_a_supernet
from nasrun.metrics.bootstrap import Estimate
from nasrun.metrics.report import RankReport, compare, noise_ceiling
from nasrun.report.health import say_health
from nasrun.run.files import write_atomic, write_json
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
        raise MissingCapabilityError(
            "evaluator: rank measures the scores of a supernet",
            group="evaluator",
            has=scores_a_supernet,
        )
    truth = GroundTruth(
        wanted.truth, wanted.truth_seeds, Path(wanted.truth_store), truth_config(run.config)
    )
    truth.start(space, splits, run)
    scorer = setup.evaluator.bind(space, splits, run.compute, run.streams)
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
    ways = [("score", scorer, scores)]
    if also is not None:
        ways.append(("also", also.scorer, also.scores))
    for epoch in epochs:
        left = [way for way in ways if len(way[2].of(epoch)) < len(architectures)]
        if left and weights is None:  # a run that is continued may no longer have this supernet
            train_to(setup, run, splits.problem, training, epoch, health)
        for name, way, found in left:
            stage = f"{name}/epoch{epoch}"
            score(way, run, architectures, training.network, stage, epoch, found.of(epoch))
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
    gates = setup.gates(
        problem,
        None,
        run.streams,
        steps=training.steps,
        steps_per_epoch=training.steps_per_epoch,
    )
    train_watched(run, training, 0, gates, health, until=epoch)
    run.save_weights("supernet", training.network)
    run.checkpoint()  # scoring may leave the supernet's statistics changed


def score(
    scorer: Scorer,
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
        for trial in checked(scorer, left, supernet, run):
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
    names = [setup.search_space.write(architecture) for architecture in architectures]
    params = np.array([cost.params for cost in costs])
    macs = np.array([cost.macs for cost in costs])
    truth = true_scores.mean(0)
    columns = {f"score_{epoch}": scores.of(epoch) for epoch in epochs}
    if also is not None:
        columns |= {f"also_{epoch}": also.scores.of(epoch) for epoch in epochs}
    write_csv(run.directory / "ranking.csv", names, params, macs, true_scores, columns)
    reports: dict[int, RankReport] = {}
    for epoch in epochs:
        try:
            reports[epoch] = compare(
                scores.of(epoch),
                truth,
                params=params,
                macs=macs,
                labels=names,
                top_shares=(wanted.top,),
                ks=(1, wanted.k),
                resamples=wanted.resamples,
                confidence=wanted.confidence,
                rng=run.streams.numpy("bootstrap", epoch),
            )
        except UserError as error:  # all tied, as a supernet is that has learned nothing yet
            if epoch == epochs[-1]:
                raise UserError(
                    f"{error}; what was measured is in {run.directory / 'ranking.csv'}"
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
    content: dict[str, Any] = {
        "epochs": {str(epoch): found.to_json() for epoch, found in reports.items()},
        "noise_ceiling": {name: found.to_json() for name, found in ceiling.items()},
    }
    if also is not None:
        also.compare(scores, truth, epochs, wanted, run.streams)
        content["also"] = also.to_json()
    write_json(run.directory / "ranking.json", content)
    last = reports[epochs[-1]]
    result: dict[str, Any] = {
        **{measure.name: number(measure.estimate.value) for measure in last.measures},
        "kendall_low": number(last["kendall"].low),
        "kendall_high": number(last["kendall"].high),
        "architectures": len(architectures),
        **{f"ceiling_{name}": number(found.value) for name, found in ceiling.items()},
        **spread("score", scores.of(epochs[-1])),
        **spread("truth", truth),
        **(also.result() if also is not None else {}),
    }
    from nasrun.report import (
        ranking as rank_words,  # rich tables and matplotlib: not before they are needed
    )

    rank_words.plot(run, reports, scores.of(epochs[-1]), truth, params)
    if also is not None:
        also.plot(run, scores.of(epochs[-1]), truth, params)
    result = run.finish({name: value for name, value in result.items() if value is not None})
    rank_words.say(run, reports, ceiling)
    if also is not None:
        also.say(run)
    return result


def number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def spread(name: str, values: npt.ArrayLike) -> dict[str, float]:
    """How far scores lie apart: the least, the median and the greatest."""
    low, middle, high = np.quantile(np.asarray(values), [0, 0.5, 1]).tolist()
    return {f"{name}_min": low, f"{name}_median": middle, f"{name}_max": high}


def write_csv(
    path: Path,
    names: Sequence[str],
    params: Any,
    macs: Any,
    true_scores: Scores,
    scores: Mapping[str, Sequence[float]],
) -> None:
    """A row for each architecture: sizes, truth by seed and on average, scores by column."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    seeds = [f"truth_{seed}" for seed in range(len(true_scores))]
    writer.writerow(["architecture", "params", "macs", "truth", *seeds, *scores])
    columns = [
        *(names, params.tolist(), macs.tolist(), true_scores.mean(0).tolist()),
        *true_scores.tolist(),
        *scores.values(),
    ]
    writer.writerows(zip(*columns, strict=True))
    write_atomic(path, lambda file: file.write(text.getvalue().encode()))
