"""``nasrun search``: train a supernet, search in it, and train the winner from scratch."""

from __future__ import annotations

from typing import Any

from nasrun.dataset.base import Splits
from nasrun.run.run import Run
from nasrun.search_algo.base import Round
from nasrun.search_space.base import Supernet
from nasrun.task.parts import Parts
from nasrun.task.retrain import retrain_architecture, say_winner
from nasrun.trainer.trainer import Training
from nasrun.values import Trial


def search(parts: Parts, run: Run) -> dict[str, Any]:
    """The whole job; returns what stands in result.json."""
    splits = parts.dataset.load(run.streams.sub("dataset"), run.compute.device)
    algo, evaluator = parts.search_algo, parts.evaluator
    parts.check_gates()
    parts.check_networks(splits.task)
    algo.start(parts.search_space, run.streams.sub("search_algo"), run.compute.device)
    evaluator.start(parts.search_space, splits, run.compute, run.streams)
    training = start_supernet(parts, run, splits) if evaluator.needs_supernet else None
    run.begin()

    while (round_ := algo.next_round(run)) is not None:
        if training is not None:
            if round_.fresh_supernet and round_.index > 0:
                training = start_supernet(parts, run, splits, first_step=training.step)
            gates = parts.sampler.over(
                parts.search_space, splits.task, round_.pool, run.streams.sub("sampler")
            )
            training.train_round(run, f"supernet/round{round_.index}", gates)
            run.save("supernet", training.state_dict())
        score(parts, run, round_, training.network if training else None)

    winner, result = shortlist(parts, run, splits)
    run.save_architecture(winner.architecture)
    result |= retrain_architecture(parts, run, splits, winner.architecture)
    result = run.finish(result)
    say_winner(parts, run, winner.architecture, result)
    return result


def start_supernet(
    parts: Parts, run: Run, splits: Splits, *, first_step: int = 0
) -> Training[Supernet]:
    """A supernet with new weights, ready to be trained."""
    with run.streams.default("supernet/init", first_step):
        supernet = parts.search_space.supernet(splits.task, auxiliary=parts.trainer.auxiliary)
    return parts.trainer.start(
        supernet,
        splits.train,
        run.compute,
        run.streams.sub("supernet"),
        rounds=parts.search_algo.rounds,
        first_step=first_step,
    )


def score(parts: Parts, run: Run, round_: Round, supernet: Supernet | None) -> None:
    """Score whatever the algorithm asks for in this round."""
    best = 0.0
    with run.stage(f"score/round{round_.index}", round_.evaluations) as stage:

        def report(trial: Trial) -> None:
            nonlocal best
            best = max(best, trial.score)
            stage.advance(score=trial.score, best=best)

        while architectures := parts.search_algo.ask():
            trials = parts.evaluator.score(architectures, supernet, run, report)
            run.record(trials, round=round_.index)
            parts.search_algo.tell(trials)


def shortlist(parts: Parts, run: Run, splits: Splits) -> tuple[Trial, dict[str, Any]]:
    """The winner, chosen among the best by brief stand-alone training where that is asked for.

    Source: the final selection of NAO-V2's released code.
    """
    count = parts.shortlist.count
    found = parts.search_algo.best(max(count, 1))
    searched = {trial.architecture: trial.score for trial in found}
    if count > 1:
        run.say(f"the best {len(found)} of the search, each trained briefly from scratch")
        evaluator = parts.shortlist.evaluator
        evaluator.start(parts.search_space, splits, run.compute, run.streams)
        with run.stage("shortlist", len(found)) as stage:
            trials = evaluator.score(
                [trial.architecture for trial in found],
                None,
                run,
                lambda trial: stage.advance(score=trial.score),
            )
        run.record(trials, round="shortlist")
        found = sorted(trials, key=lambda trial: -trial.score)  # stable: ties stay in order
    winner = found[0]
    result = {"score": searched[winner.architecture]}
    if count > 1:
        result["shortlist_accuracy"] = winner.score
    return winner, result
