"""``nasrun search``: train a supernet, search in it, and train the winner from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from nasrun.dataset.base import Splits
from nasrun.errors import UserError
from nasrun.evaluator.base import Scorer
from nasrun.report.figures_architecture import save_block_history
from nasrun.report.front import save_front, save_front_picture
from nasrun.run.layout import CHECKPOINTS, LATENCIES, SUPERNET
from nasrun.run.run import Run
from nasrun.run.stages import PlannedStage
from nasrun.search_algo.base import Round, Search
from nasrun.search_algo.first_rank import FirstRankSearch
from nasrun.task.base import Task
from nasrun.task.health import warn_of_collapse
from nasrun.task.retrain import retrain_architecture, retrained_objective, say_winner
from nasrun.task.scoring import SameImages, Scores, score_all
from nasrun.task.setup import Setup
from nasrun.task.stages import search_stages
from nasrun.task.supernet_stage import SupernetStage
from nasrun.values import Trial


class SearchTask(Task):
    """Search an architecture, and train it from scratch."""

    takes = SUPERNET
    same_images = True

    @classmethod
    def objective(cls, settings: Mapping[str, Any]) -> str | None:
        """Name the best judgement of the winner by validation images that the settings make."""
        return retrained_objective(settings) or (
            "shortlist_accuracy" if settings["shortlist"]["count"] > 1 else "score"
        )

    def stages(self, setup: Setup, splits: Splits) -> list[PlannedStage]:
        """Plan all rounds, the shortlist and the retraining."""
        return search_stages(setup, splits)

    def run(self, setup: Setup, run: Run, source: Path | None) -> dict[str, Any]:
        """Do the whole search, or the rest of it; returns the content of result.json.

        source: weights of a trained supernet, which then is not trained here; None: no weights.
        """
        splits = setup.load(run)
        space = setup.search_space
        setup.check_algo()
        setup.check_networks(splits.problem)
        if setup.retrain.truth is not None:  # mistakes are reported before anything trains
            setup.retrain.truth.bind(space, splits, run.compute, run.streams)
        latencies = setup.budget.latency.bind(
            space, splits.problem, run.compute, run.screen, run.directory / LATENCIES
        )
        with run.compute.ranks.first_alone():  # it measures latencies, which the others read
            candidates = setup.budget.bind(space, splits.problem, latencies, run.screen)
        search = setup.search_algo.bind(
            candidates, run.streams.sub("search_algo"), run.compute.device
        )
        if run.compute.ranks.size > 1 and not setup.search_algo.learns_gates:
            search = FirstRankSearch(search, run.compute.ranks)
        scorer = setup.evaluator.bind(space, splits, run.compute, run.streams)
        needed = setup.evaluator.needs_supernet
        supernet = SupernetStage(setup, run, splits, search=search, weights=source, needed=needed)
        scores = Scores(space)
        run.expect(search_stages(setup, splits, loaded=source is not None))
        run.begin()
        latencies.keep(run.directory / LATENCIES)
        run.keep("images", SameImages(splits))
        run.keep("search_algo", search)
        run.keep("scores", scores)
        if "trainer.epochs" in run.changed and scores.groups:
            raise UserError(
                "trainer.epochs: architectures have been scored by the supernet as it is, so it "
                "cannot be trained for longer; start a new run"
            )
        supernet.keep()

        while (round_ := search.next_round(run)) is not None:
            supernet.train(round_)
            score_round(setup, run, search, round_, scorer, supernet, scores)
        supernet.drop()
        save_front(search, space, run)
        if history := search.block_history():
            save_block_history(history.epochs, history.macs, run.directory)

        winner, result = choose_winner(setup, run, search, splits, scores)
        save_front_picture(search, winner, result["score"], run)
        result |= search.report()
        run.save_architecture(winner.architecture)
        result["parameter_free"] = share = space.free_share(winner.architecture)
        # Before the long training of the winner, not after it.
        warn_of_collapse(run, share, "the winner", learned=setup.search_algo.learns_gates)
        result |= retrain_architecture(setup, run, splits, winner.architecture)
        if run.writes:
            result |= latencies.of_winner(winner.architecture)
        result = run.finish(result)
        supernet.say_health()
        say_winner(setup, run, splits, winner.architecture, result)
        return result


def score_round(
    setup: Setup,
    run: Run,
    search: Search,
    round_: Round,
    scorer: Scorer,
    supernet: SupernetStage,
    scores: Scores,
) -> None:
    """Score all architectures that the algorithm asks for in this round."""
    trials = scores.trials_of(f"round{round_.index}")
    best = max(trials, key=lambda trial: trial.rank_key, default=None)  # of equal ones the first
    with run.stage(f"score/round{round_.index}", len(trials) + round_.evaluations) as stage:
        stage.advance(len(trials))
        while architectures := search.ask():
            for trial in score_all(
                scorer,
                architectures,
                trials,
                run,
                stage,
                supernet=supernet.network,
                gates_of=search.gates,
                notes_of=partial(notes_of, search),
                round=round_.index,
            ):
                search.tell([trial])
                best = trial if best is None or trial.rank_key > best.rank_key else best
                free = setup.search_space.free_share(best.architecture)
                stage.advance(score=trial.score, best=best.score, parameter_free=free)


def notes_of(search: Search, trial: Trial) -> dict[str, Any]:
    """Return what trials.jsonl tells of a trial besides its score, for the report.

    How it was made, and the costs of its final network that are bounded or are goals.
    """
    costs = {**search.candidates.costs(trial.architecture), **search.costs(trial)}
    return {**search.origin(trial.architecture), **({"final": costs} if costs else {})}


def choose_winner(
    setup: Setup, run: Run, search: Search, splits: Splits, scores: Scores
) -> tuple[Trial, dict[str, Any]]:
    """Choose the winner; with a shortlist, by brief stand-alone training of the best.

    Source: the final selection of NAO-V2's released code.
    """
    found = search.best(max(setup.shortlist.count, 1))
    if len(found) == 1:
        return found[0], {"score": found[0].score}
    run.say(f"the best {len(found)} of the search, each trained briefly from scratch")
    trials = scores.trials_of("shortlist")
    scorer = setup.shortlist.evaluator.bind(setup.search_space, splits, run.compute, run.streams)
    names = [trial.architecture for trial in found]
    done = len(trials)
    if [trial.architecture for trial in trials] != names[:done]:
        raise UserError(f"the shortlist in {run.directory / CHECKPOINTS} is not of this search")
    with run.stage("shortlist", len(found)) as stage:
        stage.advance(done)
        for trial in score_all(scorer, names[done:], trials, run, round="shortlist"):
            stage.advance(score=trial.score)
    winner = max(trials, key=lambda trial: trial.score)  # of equal scores the first
    searched = {trial.architecture: trial.score for trial in found}
    return winner, {
        "score": searched[winner.architecture],
        "shortlist_accuracy": winner.score,
    }
