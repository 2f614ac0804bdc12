"""``nasrun supernet``: train a supernet of the whole space, for searches that start from it."""

from __future__ import annotations

from typing import Any

from nasrun.errors import UserError
from nasrun.report.health import say_health
from nasrun.run.run import Run
from nasrun.search_algo.base import Round
from nasrun.task.health import HealthReport
from nasrun.task.scoring import SameImages
from nasrun.task.search import start_supernet, train_supernet
from nasrun.task.setup import Setup


def supernet(setup: Setup, run: Run) -> dict[str, Any]:
    """The first stage of a search with a single round; returns what stands in result.json.

    Raises UserError where the search algorithm trains a pool of architectures, which it makes up
    as it goes: then there is no such stage.
    """
    if setup.search_algo.trains_pool:
        raise UserError(
            f"search_algo {type(setup.search_algo).__name__} trains a pool of architectures, round "
            "by round, so its supernet cannot be trained alone: choose search_algo=evolution, "
            "random or nsga2, or run the whole search"
        )
    if setup.search_algo.learns_gates:
        raise UserError(
            f"search_algo {type(setup.search_algo).__name__} learns its gates while the supernet "
            "trains, so its supernet cannot be trained alone: run the whole search"
        )
    splits = setup.load(run.compute.device)
    setup.check_gates()
    health = None
    if setup.health is not None:
        health = HealthReport(setup.health, setup.search_space, splits, run)
    training = start_supernet(setup, run, splits, rounds=1, health=health)
    run.begin()
    run.keep("images", SameImages(splits))
    run.keep("supernet", training)
    if health is not None:
        run.keep("health", health)
    train_supernet(setup, run, splits, training, Round(0, None, True, 0), health)
    result = run.finish({"steps": training.steps_per_round})
    if health is not None:
        say_health(run, health.summary())
    run.say()
    run.say(f"everything is in     {run.directory}")
    run.say(f"search in it         nasrun search from={run.directory}")
    run.say(f"how truly it ranks   nasrun rank from={run.directory}")
    return result
