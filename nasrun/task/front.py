"""The front of a search with several goals: front.json, a picture, and a table on the screen."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from nasrun.errors import UserError
from nasrun.run.files import write_json
from nasrun.run.run import Run
from nasrun.search_algo.base import Search
from nasrun.search_space.base import SearchSpace
from nasrun.values import Trial

FRONT = "front.json"


def save_front(search: Search, space: SearchSpace, run: Run) -> None:
    """Write and draw the front, where the search has one; ``pick`` is its place in the file."""
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
    from nasrun.report import figures  # matplotlib: not before it is needed

    def points(trials: Sequence[Trial]) -> list[tuple[float, float]]:
        return [(search.costs(trial)[goals[0]], trial.score) for trial in trials]

    visited = points(search.best(sys.maxsize))
    figures.front(points(front), visited, run.directory / "front", x=goals[0])
    table = Table("pick", "score %", *goals, box=box.SIMPLE_HEAD)
    for pick, row in enumerate(rows):
        table.add_row(str(pick), f"{100 * row['score']:.2f}", *(f"{row[g]:,.6g}" for g in goals))
    run.say()
    run.screen.console.print(table)
    run.say(f"each can be retrained: nasrun retrain from={run.directory} pick=N")


def picked(value: Any, pick: Any, where: str) -> Any:
    """The architecture of that place in a front; raises UserError where there is none."""
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise UserError(f"{where} is no front")
    if type(pick) is not int or not 0 <= pick < len(value):
        raise UserError(f"pick={pick}: {where} has the places 0 to {len(value) - 1}")
    return value[pick].get("architecture")
