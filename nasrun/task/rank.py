"""``nasrun rank``: measure how well a supernet ranks architectures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from nasrun.architectures.samples import Architectures, Chosen
from nasrun.dataset.base import Splits
from nasrun.errors import MissingCapabilityError, UserError
from nasrun.evaluator.base import Evaluator, Scorer, scores_a_supernet
from nasrun.limits import Images
from nasrun.metrics import power
from nasrun.metrics.bootstrap import Estimate
from nasrun.metrics.report import RankReport, compare, noise_ceiling
from nasrun.metrics.size_bias import size_bias
from nasrun.report.ranking import (
    RankedArchitectures,
    plot_ranking,
    ranking_result,
    say_end,
    say_ranking,
    write_ranking,
)
from nasrun.report.size_bias import SizeBiasReport, SizeClasses
from nasrun.run.layout import RANKING_TABLE, SUPERNET
from nasrun.run.run import Run
from nasrun.run.stages import PlannedStage
from nasrun.run.stopwatch import Stopwatch
from nasrun.sampler.base import Sampler, takes_pool
from nasrun.search_space.base import SizeName
from nasrun.streams import Streams
from nasrun.task.base import Task
from nasrun.task.ground_truth import GroundTruth, TrueScores, truth_config
from nasrun.task.rank_also import SecondScorer
from nasrun.task.rank_progress import MAX_SHARE, RankProgress
from nasrun.task.scoring import SameImages, Scores, score_all
from nasrun.task.setup import Setup
from nasrun.task.size_classes import classes_by_size
from nasrun.task.stages import rank_stages
from nasrun.task.supernet_stage import WHOLE_SPACE, SupernetStage
from nasrun.values import Architecture, Cost

BIAS_SIZES: tuple[SizeName, ...] = ("params", "macs")
"""Sizes to which a bias of the ranking is measured."""


class RankTask(Task):
    """Measure how well a supernet ranks architectures, compared with a ground truth.

    architectures: the architectures to rank. truth: the evaluator that gives the ground truth.

    train_on: what the supernet trains, the ranked architectures alone (``pool``) or the whole
    ``space``; without effect on a supernet that is loaded.
    also: a second evaluator of the same supernet, whose scores are compared with the first ones.
    truth_seeds: number of trainings per architecture if the truth is trained. truth_store: folder
    of their results, so that no network is trained twice.
    epochs: looks into the training: epochs after which the ranking is measured, besides the end.
    every: epochs of training between two measurements of tau-b on a fixed sample; 0: none.
    progress_sample, progress_images: its architectures, and the images at most for each.
    resamples, confidence: settings of the bootstrap intervals. top, k: share and number of the best
    architectures in the measures of the top.
    """

    settings = "rank"
    takes = SUPERNET
    same_images = True
    changeable = (*Task.changeable, "rank.truth_store")
    stores = MappingProxyType({**Task.stores, "rank.truth_store": "ground_truth"})

    @classmethod
    def objective(cls, settings: Mapping[str, Any]) -> str | None:
        """Name the agreement of the last ranking with the truth."""
        return "kendall"

    def __init__(
        self,
        *,
        architectures: Architectures,
        truth: Evaluator,
        truth_seeds: PositiveInt,
        truth_store: str,
        epochs: list[PositiveInt],
        resamples: Annotated[int, Field(ge=0, le=1_000_000)],
        confidence: Annotated[float, Field(gt=0, lt=1)],
        top: Annotated[float, Field(gt=0, le=1)],
        k: PositiveInt,
        train_on: Literal["pool", "space"] = "space",
        every: NonNegativeInt = 0,
        progress_sample: Annotated[int, Field(ge=3, le=1000)] = 30,
        progress_images: Annotated[Images, Field(ge=2)] = 200,
        also: Evaluator | None = None,
    ) -> None:
        if sorted(set(epochs)) != epochs:
            raise UserError(f"rank.epochs={epochs}: must rise from each to the next")
        if also is not None and not also.needs_supernet:
            raise MissingCapabilityError(
                "rank.also is a second way to score the supernet",
                group="evaluator@rank.also",
                has=scores_a_supernet,
            )
        self.architectures = architectures
        self.truth, self.also = truth, also
        self.train_on = train_on
        self.every = every
        self.progress_sample, self.progress_images = progress_sample, progress_images
        self.truth_seeds = truth_seeds
        self.truth_store = truth_store
        self.epochs = epochs
        self.resamples = resamples
        self.confidence = confidence
        self.top = top
        self.k = k

    def stages(self, setup: Setup, splits: Splits) -> list[PlannedStage]:
        """Plan the training, the scores and the networks of the ground truth."""
        rng = Streams(setup.seed).numpy("architectures")
        chosen = self.architectures.choose(setup.search_space, splits.problem, rng)
        return rank_stages(setup, splits, self, len(chosen.architectures))

    def run(self, setup: Setup, run: Run, source: Path | None) -> dict[str, Any]:
        """Train a supernet, or load the weights ``source``; score, compare, report."""
        space, evaluator = setup.search_space, setup.evaluator
        if source is None:
            self.check_sampler(setup.sampler)
        splits = setup.load(run)
        setup.check_gates()
        chosen = self.architectures.choose(
            space, splits.problem, run.streams.numpy("architectures")
        )
        architectures = chosen.architectures
        if len(architectures) < 3:
            raise UserError(
                f"a ranking needs three architectures at least, not {len(architectures)}"
            )
        if not evaluator.needs_supernet:
            raise MissingCapabilityError(
                "evaluator: rank measures the scores of a supernet",
                group="evaluator",
                has=scores_a_supernet,
            )
        truth = GroundTruth(
            self.truth, self.truth_seeds, Path(self.truth_store), truth_config(run.config)
        )
        truth.start(space, splits, run)
        chosen = with_truth(chosen, truth, run)
        architectures = chosen.architectures
        scorer = evaluator.bind(space, splits, run.compute, run.streams)
        also = SecondScorer.bind(self, space, splits, run)
        supernet = SupernetStage(setup, run, splits, weights=source)
        if self.every and source is None:
            supernet.progress = RankProgress.bind(self, truth, architectures, space, splits, run)
        epochs = [epoch for epoch in self.epochs if epoch < setup.trainer.epochs]
        epochs = [*epochs, setup.trainer.epochs] if source is None else [0]
        run.expect(rank_stages(setup, splits, self, len(architectures), loaded=source is not None))
        run.begin()
        run.say(power.note(len(architectures)))
        if supernet.progress and supernet.progress.share > MAX_SHARE:
            run.say(
                f"rank.every={self.every}: measuring takes about {supernet.progress.share:.0%} of "
                "the time of so short a training"
            )
        pool = tuple(architectures) if self.train_on == "pool" else None
        round_ = replace(WHOLE_SPACE, pool=pool)
        scores, watch = Scores(space), Stopwatch(run.compute.device)
        run.keep("images", SameImages(splits))
        run.keep("scores", scores)
        check_same(architectures, scores)
        run.keep("stopwatch", watch)
        supernet.keep()
        ways = [("score", scorer)]
        if also is not None:
            ways.append(("also", also.scorer))
        for epoch in epochs:
            left = [
                (name, way)
                for name, way in ways
                if len(scores.trials_of(f"{name}/epoch{epoch}")) < len(architectures)
            ]
            if left:  # a continued run may no longer have the supernet of that epoch
                with watch.running():
                    supernet.train(round_, until=epoch)
            for name, way in left:
                # Looks in between and second scores are no part of what the ranking costs.
                counted = name == "score" and epoch == epochs[-1]
                with watch.running() if counted else nullcontext():
                    score(way, run, architectures, supernet, f"{name}/epoch{epoch}", epoch, scores)
        supernet.drop()
        true_scores = truth.scores(architectures)
        costs = [
            space.cost(architecture, splits.problem, truth.scale) for architecture in architectures
        ]
        supernet.say_health()
        if also is not None:
            also.scores = {epoch: values(scores, "also", epoch) for epoch in epochs}
        by_epoch = {epoch: values(scores, "score", epoch) for epoch in epochs}
        classes: dict[str, SizeClasses] = {}
        if trained := supernet.trained_steps(round_):
            for name in BIAS_SIZES:
                size = space.sizer(name, splits.problem, truth.scale)
                classes[name] = classes_by_size(space, size, architectures, *trained)
        seconds = watch.seconds if source is None else None  # loaded weights took some elsewhere
        return report(
            *(setup, run, self, chosen, costs, by_epoch, true_scores, also),
            classes=classes,
            seconds=seconds,
        )

    def check_sampler(self, sampler: Sampler) -> None:
        """Raise UserError if the sampler cannot train the ranked architectures alone."""
        if self.train_on == "pool" and not sampler.takes_pool:
            raise MissingCapabilityError(
                f"sampler {type(sampler).__name__} trains the whole search space, but "
                "rank.train_on=pool trains the ranked architectures: take rank.train_on=space, or",
                group="sampler",
                has=takes_pool,
            )


def with_truth(chosen: Chosen, truth: GroundTruth, run: Run) -> Chosen:
    """Leave out the architectures that a table of true scores lacks, and say how many.

    Raises UserError if fewer than three are left.
    """
    missing = truth.missing(chosen.architectures)
    if not missing:
        return chosen
    count = len(chosen.architectures)
    told = (
        f"rank.truth has no score for {len(missing)} of the {count} chosen architectures, e.g. "
        f"{truth.space.write(missing[0])}"
    )
    if count - len(missing) < 3:
        raise UserError(f"{told}; a ranking needs three at least: complete the table")
    run.say(f"warning: {told}; the other {count - len(missing)} are ranked", "yellow")
    lacking = set(missing)
    kept = [index for index, one in enumerate(chosen.architectures) if one not in lacking]
    return Chosen(
        [chosen.architectures[index] for index in kept],
        None if chosen.strata is None else [chosen.strata[index] for index in kept],
    )


def check_same(architectures: Sequence[Architecture], scores: Scores) -> None:
    """Raise UserError if a continued run has scored other architectures than are ranked now."""
    for trials in scores.groups.values():
        if [trial.architecture for trial in trials] != list(architectures[: len(trials)]):
            raise UserError(
                "the architectures to rank are not those that the run began with: their file, or "
                "the table of true scores, has changed since; put it back, or start a new run"
            )


def values(scores: Scores, name: str, epoch: int) -> list[float]:
    """Return the scores after an epoch, in the order of the architectures."""
    return [trial.score for trial in scores.trials_of(f"{name}/epoch{epoch}")]


def score(
    scorer: Scorer,
    run: Run,
    architectures: Sequence[Architecture],
    supernet: SupernetStage,
    group: str,
    epoch: int,
    scores: Scores,
) -> None:
    """Score all architectures that have no score yet in ``group``."""
    trials = scores.trials_of(group)
    with run.stage(group, len(architectures)) as stage:
        stage.advance(len(trials))
        left = architectures[len(trials) :]
        network = supernet.network
        for _ in score_all(scorer, left, trials, run, stage, supernet=network, epoch=epoch):
            stage.advance(1)


def report(
    setup: Setup,
    run: Run,
    wanted: RankTask,
    chosen: Chosen,
    costs: Sequence[Cost],
    scores: Mapping[int, Sequence[float]],
    true_scores: TrueScores,
    also: SecondScorer | None,
    *,
    classes: Mapping[str, SizeClasses],
    seconds: float | None,
) -> dict[str, Any]:
    """Compare scores with truth; write the tables and pictures, and show the result.

    seconds: what training and scoring took (see Stopwatch); None: unknown.
    """
    epochs = list(scores)
    ranked = RankedArchitectures(
        [setup.search_space.write(architecture) for architecture in chosen.architectures],
        np.array([cost.params for cost in costs]),
        np.array([cost.macs for cost in costs]),
        true_scores,
    )
    columns = {f"score_{epoch}": scores[epoch] for epoch in epochs}
    if also is not None:
        columns |= {f"also_{epoch}": also.scores[epoch] for epoch in epochs}
    ranked.write_table(run, columns)
    truth = ranked.truth
    reports: dict[int, RankReport] = {}
    for epoch in epochs:
        try:
            reports[epoch] = compare(
                scores[epoch],
                truth,
                params=ranked.params,
                macs=ranked.macs,
                labels=ranked.names,
                top_shares=(wanted.top,),
                ks=(1, wanted.k),
                resamples=wanted.resamples,
                confidence=wanted.confidence,
                rng=run.streams.numpy("bootstrap", epoch),
                strata=chosen.strata,
            )
        except UserError as error:  # all scores are tied if the supernet has learned nothing yet
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
            strata=chosen.strata,
        )
    second = (
        also.compare(scores, truth, wanted, run.streams, chosen.strata)
        if also is not None
        else None
    )
    last = scores[epochs[-1]]
    sizes: dict[str, Any] = {name: getattr(ranked, name) for name in BIAS_SIZES}
    biases = {
        name: size_bias(
            *(last, truth, size),
            resamples=min(wanted.resamples, 200),
            confidence=wanted.confidence,
            rng=run.streams.numpy("bootstrap/size_bias", index),
            strata=chosen.strata,
        )
        for index, (name, size) in enumerate(sizes.items())
    }
    bias = SizeBiasReport(biases, classes)
    write_ranking(run, reports, ceiling, second, bias)
    bias.plot(run, last, truth, sizes)
    plot_ranking(run, reports, last, truth, ranked.params)
    if second is not None:
        second.plot(run, last, truth, ranked.params)
    result = ranking_result(reports[epochs[-1]], ceiling, last, truth, second, bias)
    if seconds is not None:
        result["ranking_seconds"] = round(seconds, 2)
    result = run.finish(result)
    say_ranking(run, reports, ceiling)
    bias.say(run)
    if second is not None:
        second.say(run)
    say_end(run, reports, ceiling)
    return result
