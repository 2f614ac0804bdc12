"""The front of a search with several goals, as front.json, a picture and a table."""

from __future__ import annotations

import sys
from typing import Any

from rich import box
from rich.table import Table

from nasrun.report.figures_search import Point, plot_front
from nasrun.report.units import in_unit, with_unit
from nasrun.run.commands import command
from nasrun.run.files import write_json
from nasrun.run.layout import FRONT, FRONT_PICTURE
from nasrun.run.run import Run
from nasrun.search_algo.base import Search
from nasrun.search_space.base import SearchSpace
from nasrun.values import Trial


def save_front(search: Search, space: SearchSpace, run: Run) -> None:
    """Write and show the front, if the algorithm has one.

    A later retraining chooses an architecture by its place in the file: ``pick``.
    """
    front = search.front()
    if front is None:
        return
    rows: list[dict[str, Any]] = [
        {
            "architecture": trial.architecture.to_json(),
            "written": space.write(trial.architecture),
            "score": trial.score,
            **search.costs(trial),
        }
        for trial in front
    ]
    write_json(run.directory / FRONT, rows)
    goals = list(search.costs(front[0]))
    table = Table("pick", "score %", *map(with_unit, goals), box=box.SIMPLE_HEAD)
    for pick, row in enumerate(rows):
        costs = (f"{in_unit(goal, row[goal]):,.4g}" for goal in goals)
        table.add_row(str(pick), f"{100 * row['score']:.2f}", *costs)
    run.say()
    run.screen.show(table)
    run.say(f"each can be retrained: {command('retrain', f'from={run.directory}')} pick=N")


def save_front_picture(search: Search, winner: Trial, score: float, run: Run) -> None:
    """Plot the front, if the algorithm has one. score: of the winner, in the search."""
    front = search.front()
    if front is None:
        return

    def point(trial: Trial) -> Point:
        return Point(search.costs(trial), trial.score)

    plot_front(
        [point(trial) for trial in front],
        [point(trial) for trial in search.best(sys.maxsize)],
        run.directory / FRONT_PICTURE,
        winner=Point(search.costs(winner), score),
    )
