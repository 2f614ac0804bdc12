"""The front of a search with several goals, as front.json, a picture and a table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from nasrun.report.figures import plot_front
from nasrun.run.commands import command
from nasrun.run.files import write_json
from nasrun.run.layout import FRONT, FRONT_PICTURE
from nasrun.run.run import Run
from nasrun.search_algo.base import Search
from nasrun.search_space.base import SearchSpace
from nasrun.values import Trial


def save_front(search: Search, space: SearchSpace, run: Run) -> None:
    """Write, plot and show the front, if the algorithm has one.

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

    def points(trials: Sequence[Trial]) -> list[tuple[float, float]]:
        return [(search.costs(trial)[goals[0]], trial.score) for trial in trials]

    visited = points(search.best(sys.maxsize))
    plot_front(points(front), visited, run.directory / FRONT_PICTURE, x=goals[0])
    table = Table("pick", "score %", *goals, box=box.SIMPLE_HEAD)
    for pick, row in enumerate(rows):
        table.add_row(str(pick), f"{100 * row['score']:.2f}", *(f"{row[g]:,.6g}" for g in goals))
    run.say()
    run.screen.show(table)
    run.say(f"each can be retrained: {command('retrain', f'from={run.directory}')} pick=N")
