"""``nasrun search``: train a supernet, search in it, and train the winner from scratch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from nasrun.dataset.base import Splits
from nasrun.errors import UserError
from nasrun.evaluator.base import GatesOf, Scorer, choices_of
from nasrun.report.figures_architecture import save_block_history
from nasrun.report.health import say_health
from nasrun.run.run import Run
from nasrun.search_algo.base import Round
from nasrun.search_space.base import Supernet
from nasrun.search_space.gates import GatesOfStep
from nasrun.task.collapse import warn_of_collapse
from nasrun.task.front import save_front
from nasrun.task.health import HealthReport
from nasrun.task.retrain import retrain_architecture, say_winner
from nasrun.task.scoring import SameImages, Scored, Tally
from nasrun.task.setup import Setup
from nasrun.trainer.gate_learner import GateContext, GateLearner
from nasrun.trainer.training import Training
from nasrun.values import Architecture, Trial

LATENCIES = "latency.csv"
"""The table that the run goes by, where latency is a goal or is bounded."""


def search(setup: Setup, run: Run, weights: Path | None = None) -> dict[str, Any]:
    """The whole job, or what is left of it; returns what stands in result.json.

    weights: of a supernet that has been trained already; then this stage is left out.
    A run that is continued goes through the same lines: each part knows how far it has come, and
    what is done is not done again.
    """
    splits = setup.load(run.compute.device)
    algo = setup.search_algo
    setup.check_algo()
    setup.check_networks(splits.problem)
    if setup.retrain.truth is not None:  # what it lacks is told before anything trains
        setup.retrain.truth.bind(setup.search_space, splits, run.compute, run.streams)
    latencies = setup.budget.latency.bind(
        setup.search_space, splits.problem, run.compute, run.screen, run.directory / LATENCIES
    )
    candidates = setup.budget.bind(setup.search_space, splits.problem, latencies, run.screen)
    algo.start(candidates, run.streams.sub("search_algo"), run.compute.device)
    scorer = setup.evaluator.bind(setup.search_space, splits, run.compute, run.streams)
    training = health = None
    if setup.evaluator.needs_supernet:
        if setup.health is not None and weights is None:
            health = HealthReport(setup.health, setup.search_space, splits, run)
        training = start_supernet(
            setup, run, splits, rounds=algo.rounds, learner=algo.learner, health=health
        )
        if weights is not None:
            if algo.rounds > 1:
                raise UserError(
                    f"search_algo {type(algo).__name__} trains its supernet in {algo.rounds} "
                    "rounds, so it cannot start from a trained one: leave from= out"
                )
            if algo.learner is not None:
                raise UserError(
                    f"search_algo {type(algo).__name__} learns its gates while the supernet "
                    "trains, so it cannot start from a trained one: leave from= out"
                )
            run.load_weights(weights, training.network)
            # Before the run begins: once it has, only its own directory is read.
            run.save_weights("supernet", training.network)
    tally = Tally()
    run.begin()
    latencies.keep(run.directory / LATENCIES)
    run.keep("images", SameImages(splits))
    run.keep("search_algo", algo)
    run.keep("tally", tally)
    if health is not None:
        run.keep("health", health)
    if "trainer.epochs" in run.changed and tally.round >= 0:
        raise UserError(
            "trainer.epochs: architectures have been scored by the supernet as it is, so it cannot "
            "be trained for longer; start a new run"
        )
    if training is not None and weights is None:
        run.keep("supernet", training)
    elif training is not None:
        training.rest()

    while (round_ := algo.next_round(run)) is not None:
        if training is not None and weights is None:
            if round_.fresh_supernet and training.mark == (round_.index, 0) and round_.index > 0:
                training = start_supernet(
                    setup,
                    run,
                    splits,
                    rounds=algo.rounds,
                    first_round=round_.index,
                    learner=algo.learner,
                    health=health,
                )
                run.keep("supernet", training)
            train_supernet(setup, run, splits, training, round_, health)
        score(setup, run, round_, scorer, training.network if training else None, tally)
    run.drop("supernet")
    save_front(algo, setup.search_space, run)
    if history := algo.block_history():
        save_block_history(history.epochs, history.macs, run.directory)

    winner, result = shortlist(setup, run, splits)
    run.save_architecture(winner.architecture)
    # Before the winner is trained for long, not only in the summary.
    result["parameter_free"] = setup.search_space.free_share(winner.architecture)
    warn_of_collapse(run, result["parameter_free"], "the winner")
    result |= retrain_architecture(setup, run, splits, winner.architecture)
    result = run.finish(result)
    if health is not None:
        say_health(run, health.summary())
    say_winner(setup, run, winner.architecture, result)
    return result


def start_supernet(
    setup: Setup,
    run: Run,
    splits: Splits,
    *,
    rounds: int,
    first_round: int = 0,
    learner: GateLearner | None = None,
    health: HealthReport | None = None,
) -> Training[Supernet]:
    """A supernet with new weights, ready to be trained in ``rounds`` rounds.

    learner: of the gates, which takes the sampler's place; health: looks on.
    """
    setup.check_supernet(splits.problem)
    batch_size = setup.trainer.batch_size
    epoch = splits.train.steps_per_epoch(batch_size)
    steps = rounds * setup.trainer.epochs * epoch
    ghost_batch = None
    if learner is None:
        ghost_batch = setup.sampler.ghost_batch_of(batch_size)
    else:
        context = GateContext(
            setup.search_space,
            splits.problem,
            train=splits.train,
            held_out=splits.validation,
            batch_size=batch_size,
            steps=steps,
            steps_per_epoch=epoch,
            compute=run.compute,
            streams=run.streams.sub("gates"),
        )
        learner.start(context)
    with run.streams.default("supernet/init", first_round):
        auxiliary = setup.trainer.auxiliary
        supernet = (
            setup.search_algo.supernet(setup.search_space, splits.problem, auxiliary=auxiliary)
            if learner
            else setup.search_space.supernet(splits.problem, auxiliary=auxiliary)
        )
    if health is not None:
        health.begin(supernet)
    return setup.trainer.bind(
        supernet,
        splits.train,
        run.compute,
        run.streams.sub("supernet"),
        rounds=rounds,
        first_round=first_round,
        rules=replace(
            setup.path_rules.bind(
                setup.search_space, splits.problem, run.streams.sub("path_rules"), ghost_batch
            ),
            learner=learner,
            watch=health,
        ),
    )


def train_supernet(
    setup: Setup,
    run: Run,
    splits: Splits,
    training: Training[Supernet],
    round_: Round,
    health: HealthReport | None = None,
) -> None:
    """Train what is left of this round, and put the weights where anyone may have them."""
    if training.rounds_done <= round_.index:
        if learner := training.rules.learner:
            gates: GatesOfStep = learner.gates
        else:
            gates = setup.gates(
                splits.problem,
                round_.pool,
                run.streams,
                steps=training.steps,
                steps_per_epoch=training.steps_per_epoch,
            )
        train_watched(run, training, round_.index, gates, health)
    elif health is not None:  # it may have been stopped just before
        health.measure(training, round_.index, setup.trainer.epochs)
    run.save_weights("supernet", training.network)
    # Scoring may leave the supernet's statistics changed, so its state must be safe before.
    run.checkpoint()


def train_watched(
    run: Run,
    training: Training[Supernet],
    round_: int,
    gates: GatesOfStep,
    health: HealthReport | None,
    *,
    until: int | None = None,
) -> None:
    """Train the rest of the round, or of its first ``until`` epochs, with stops to look at the
    supernet's health."""
    total = training.settings.epochs
    last = until or total
    looks = health.settings.epochs(total) if health else []
    for epoch in sorted({*(look for look in looks if look < last), last}):
        if training.step < epoch * training.steps_per_epoch:
            training.train_round(run, f"supernet/round{round_}", gates, epochs=epoch)
        if health is not None:
            health.measure(training, round_, epoch)


def score(
    setup: Setup,
    run: Run,
    round_: Round,
    scorer: Scorer,
    supernet: Supernet | None,
    tally: Tally,
) -> None:
    """Score whatever the algorithm asks for in this round."""
    done = tally.begin(round_.index)
    with run.stage(f"score/round{round_.index}", done + round_.evaluations) as stage:
        stage.advance(done)
        while architectures := setup.search_algo.ask():
            gates_of = setup.search_algo.gates
            for trial in checked(scorer, architectures, supernet, run, gates_of):
                setup.search_algo.tell([trial])
                run.record([trial], round=round_.index)
                tally.add(trial, setup.search_space.free_share(trial.architecture))
                stage.advance(score=trial.score, best=tally.best, parameter_free=tally.free)
                run.safe_point()


def shortlist(setup: Setup, run: Run, splits: Splits) -> tuple[Trial, dict[str, Any]]:
    """The winner, chosen among the best by brief stand-alone training where that is asked for.

    Source: the final selection of NAO-V2's released code.
    """
    count = setup.shortlist.count
    found = setup.search_algo.best(max(count, 1))
    if len(found) == 1:
        return found[0], {"score": found[0].score}
    run.say(f"the best {len(found)} of the search, each trained briefly from scratch")
    scorer = setup.shortlist.evaluator.bind(setup.search_space, splits, run.compute, run.streams)
    scored = Scored(setup.search_space)
    run.keep("shortlist", scored)
    names = [trial.architecture for trial in found]
    done = len(scored.trials)
    if [trial.architecture for trial in scored.trials] != names[:done]:
        raise UserError(f"the shortlist in {run.directory / 'checkpoints'} is not of this search")
    with run.stage("shortlist", len(found)) as stage:
        stage.advance(done)
        for trial in checked(scorer, names[done:], None, run):
            scored.trials.append(trial)
            run.record([trial], round="shortlist")
            stage.advance(score=trial.score)
            run.safe_point()
    winner = max(scored.trials, key=lambda trial: trial.score)  # of equals the first
    searched = {trial.architecture: trial.score for trial in found}
    return winner, {
        "score": searched[winner.architecture],
        "shortlist_accuracy": winner.score,
    }


def checked(
    scorer: Scorer,
    architectures: list[Architecture],
    supernet: Supernet | None,
    run: Run,
    gates_of: GatesOf = choices_of,
) -> Iterator[Trial]:
    """The scorer's trials; a score that is no number stops the search or, by
    ``on_nonfinite=skip``, counts as the worst."""
    for trial in scorer.score(architectures, supernet, run, gates_of):
        if math.isfinite(trial.score):
            yield trial
        elif run.compute.on_nonfinite == "skip":
            yield replace(trial, score=0.0, evaluation={**trial.evaluation, "nonfinite": True})
        else:
            note = run.write_note("nonfinite", {"architecture": trial.architecture.to_json()})
            raise UserError(
                f"the outputs of architecture {list(trial.architecture.choices)} are not finite, "
                "so it has no score: lower trainer.schedule.lr, or count such architectures as "
                f"the worst with on_nonfinite=skip; {note}"
            )
