"""``nasrun rank``: how truly a supernet ranks architectures, against a ground truth."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nasrun.errors import UserError
from nasrun.metrics.bootstrap import Estimate
from nasrun.metrics.report import RankReport, compare, noise_ceiling
from nasrun.run.files import write_atomic, write_json
from nasrun.run.run import Run
from nasrun.search_space.base import Supernet
from nasrun.task.ground_truth import GroundTruth, Scores
from nasrun.task.parts import Parts
from nasrun.task.progress import SameImages
from nasrun.task.rank_parts import Rank
from nasrun.task.search import checked, start_supernet
from nasrun.trainer.training import Training
from nasrun.values import Architecture, Cost, ImageTask


class ScoresByEpoch:
    """The supernet's scores so far: for each measured epoch those of the first architectures."""

    def __init__(self) -> None:
        self.scores: dict[str, list[float]] = {}

    def of(self, epoch: int) -> list[float]:
        return self.scores.setdefault(str(epoch), [])

    def state_dict(self) -> dict[str, Any]:
        return {"scores": {epoch: list(scores) for epoch, scores in self.scores.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scores = {
            str(epoch): [float(score) for score in scores]
            for epoch, scores in state["scores"].items()
        }


def rank(parts: Parts, run: Run, weights: Path | None = None) -> dict[str, Any]:
    """Train a supernet, or take the ``weights`` of one, score, compare; what is in result.json."""
    wanted = parts.rank
    if wanted is None:
        raise UserError("rank has no settings: the task is nasrun rank")
    space = parts.search_space
    splits = parts.load(run.compute.device)
    parts.check_gates()
    architectures = wanted.architectures.choose(
        space, splits.task, run.streams.numpy("architectures")
    )
    if len(architectures) < 3:
        raise UserError(f"a ranking needs three architectures at least, not {len(architectures)}")
    if not parts.evaluator.needs_supernet:
        raise UserError("evaluator: rank measures the scores of a supernet (supernet or kl)")
    truth = GroundTruth(
        wanted.truth, wanted.truth_seeds, Path(wanted.truth_store), truth_config(run.config)
    )
    truth.start(space, splits, run)
    parts.evaluator.start(space, splits, run.compute, run.streams)
    training = start_supernet(parts, run, splits, rounds=1)
    epochs = [epoch for epoch in wanted.epochs if epoch < parts.trainer.epochs]
    epochs.append(parts.trainer.epochs)
    if weights is not None:
        run.load_weights(weights, training.network)
        # Before the run begins: once it has, only its own directory is read.
        run.save_weights("supernet", training.network)
        epochs = [0]
    run.begin()
    scores = ScoresByEpoch()
    run.keep("images", SameImages(splits))
    run.keep("scores", scores)
    if weights is None:
        run.keep("supernet", training)
    for epoch in epochs:
        if len(scores.of(epoch)) == len(architectures):
            continue  # a run that is continued may no longer have this supernet
        if weights is None:
            train_to(parts, run, splits.task, training, epoch)
        score(parts, run, architectures, training.network, epoch, scores.of(epoch))
    run.drop("supernet")
    true_scores = truth.scores(architectures)
    costs = [space.cost(one, splits.task, truth.scale) for one in architectures]
    return report(parts, run, wanted, architectures, costs, scores, true_scores, epochs)


def truth_config(config: Any) -> dict[str, Any]:
    """What the accuracy of a stand-alone network depends on, out of the whole configuration."""
    truth = {**config["rank"]["truth"]}
    if isinstance(truth.get("trainer"), dict):
        truth["trainer"] = {k: v for k, v in truth["trainer"].items() if k != "log_every"}
    return {"search_space": config["search_space"], "truth": truth}


def train_to(
    parts: Parts, run: Run, task: ImageTask, training: Training[Supernet], epoch: int
) -> None:
    """Train until ``epoch`` epochs are done, and put the weights where anyone may have them."""
    if training.done or training.step >= epoch * training.steps_per_epoch:
        training.rest()
        return
    gates = parts.gates(task, None, run.streams, training.steps_per_epoch)
    training.train_round(run, "supernet", gates, epochs=epoch)
    run.save_weights("supernet", training.network)
    run.checkpoint()  # scoring may leave the supernet's statistics changed


def score(
    parts: Parts,
    run: Run,
    architectures: Sequence[Architecture],
    supernet: Supernet,
    epoch: int,
    scores: list[float],
) -> None:
    """The supernet's scores of all architectures that have none yet."""
    with run.stage(f"score/epoch{epoch}", len(architectures)) as stage:
        stage.advance(len(scores))
        left = list(architectures[len(scores) :])
        for trial in checked(parts.evaluator, left, supernet, run):
            scores.append(trial.score)
            run.record([trial], epoch=epoch)
            stage.advance(1)
            run.safe_point()


def report(
    parts: Parts,
    run: Run,
    wanted: Rank,
    architectures: Sequence[Architecture],
    costs: Sequence[Cost],
    scores: ScoresByEpoch,
    true_scores: Scores,
    epochs: Sequence[int],
) -> dict[str, Any]:
    """Compare, write the tables and pictures, and say what came out."""
    names = [parts.search_space.write(architecture) for architecture in architectures]
    params = np.array([cost.params for cost in costs])
    macs = np.array([cost.macs for cost in costs])
    truth = true_scores.mean(0)
    write_csv(run.directory / "ranking.csv", names, params, macs, true_scores, scores, epochs)
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
    write_json(
        run.directory / "ranking.json",
        {
            "epochs": {str(epoch): found.to_json() for epoch, found in reports.items()},
            "noise_ceiling": {name: found.to_json() for name, found in ceiling.items()},
        },
    )
    last = reports[epochs[-1]]
    result = {
        **{measure.name: number(measure.estimate.value) for measure in last.measures},
        "kendall_low": number(last["kendall"].low),
        "kendall_high": number(last["kendall"].high),
        "architectures": len(architectures),
        **{f"ceiling_{name}": number(found.value) for name, found in ceiling.items()},
    }
    from nasrun.task import rank_words  # rich tables and matplotlib: not before they are needed

    rank_words.draw(run, reports, scores.of(epochs[-1]), truth, params)
    result = run.finish({name: value for name, value in result.items() if value is not None})
    rank_words.say(run, reports, ceiling)
    return result


def number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def write_csv(
    path: Path,
    names: Sequence[str],
    params: Any,
    macs: Any,
    true_scores: Scores,
    scores: ScoresByEpoch,
    epochs: Sequence[int],
) -> None:
    """A row for each architecture: sizes, truth by seed and on average, score by epoch."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    seeds = [f"truth_{seed}" for seed in range(len(true_scores))]
    writer.writerow(
        ["architecture", "params", "macs", "truth", *seeds, *(f"score_{e}" for e in epochs)]
    )
    columns = [
        *(names, params.tolist(), macs.tolist(), true_scores.mean(0).tolist()),
        *true_scores.tolist(),
        *(scores.of(epoch) for epoch in epochs),
    ]
    writer.writerows(zip(*columns, strict=True))
    write_atomic(path, lambda file: file.write(text.getvalue().encode()))
