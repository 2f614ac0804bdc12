"""Runs side by side: the settings that differ, and the results with their differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nasrun.errors import shortened
from nasrun.metrics.bootstrap import Estimate
from nasrun.report.run_files import RunDirectory, job_files
from nasrun.report.sweep import COLUMNS, COSTS
from nasrun.run.files import printable

NOT_COMPARED = ("name", "notes", "outputs", "resume")
"""Settings that say nothing of what a run computes."""

CLASS = "._target_"
"""End of the key that holds the class of an option."""

MAX_CELL_CHARACTERS = 80
"""Length of a value that is shown."""


@dataclass(frozen=True)
class Side:
    """One of the runs that are compared.

    settings: flattened. made_with: versions, device, code. results: numbers of result.json, and
    what it has cost. intervals: of measures that have one, with their value.
    architecture: choices of the winner, if there is one.
    """

    path: Path
    title: str
    settings: Mapping[str, Any]
    made_with: Mapping[str, Any]
    results: Mapping[str, float]
    intervals: Mapping[str, Estimate]
    architecture: tuple[Any, ...] | None

    @staticmethod
    def read(path: Path, title: str, settings: Mapping[str, Any]) -> Side:
        """Read a run; settings: its configuration, flattened. Raises UserError if it is no run."""
        run = RunDirectory(path)
        record = run.record
        tolerant = job_files(path)
        versions = record.get("versions")
        git = record.get("git")
        result = tolerant.result
        spent = result.get("spent")
        spent = spent if isinstance(spent, dict) else {}
        numbers = {**result, **{f"spent_{key}": value for key, value in spent.items()}}
        found = result.get("architecture")
        choices = found.get("choices") if isinstance(found, dict) else None
        return Side(
            path,
            title,
            {key: value for key, value in settings.items() if key not in NOT_COMPARED},
            {
                "nasrun": record.get("nasrun"),
                **(versions if isinstance(versions, dict) else {}),
                **({f"git {key}": git[key] for key in git} if isinstance(git, dict) else {}),
                "device": record.get("device"),
                "threads": record.get("threads"),
            },
            {
                key: float(value)
                for key, value in numbers.items()
                if type(value) in (int, float) and math.isfinite(value) and key != "seed"
            },
            tolerant.measures,
            tuple(map(str, choices)) if isinstance(choices, list) else None,
        )


def differing(maps: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the keys whose values are not the same in all maps, with these; None: absent."""
    keys = dict.fromkeys(key for each in maps for key in each)
    rows = {key: [each.get(key) for each in maps] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row[1:])}


def differences(sides: Sequence[Side]) -> dict[str, list[float | None]]:
    """Return each result of each run minus that of the first; None where one has none."""
    return {
        key: [
            None if None in (row[0], value) else value - row[0]  # type: ignore[operator]
            for value in row[1:]
        ]
        for key, row in _results(sides).items()
    }


def _results(sides: Sequence[Side]) -> dict[str, list[float | None]]:
    known = {key for side in sides for key in side.results}
    keys = [key for key in COLUMNS if key in known] + sorted(known - COLUMNS.keys())
    return {key: [side.results.get(key) for side in sides] for key in keys}


def to_json(sides: Sequence[Side]) -> dict[str, Any]:
    """Return all that ``show`` shows as plain data; lists are in the order of the runs."""
    return {
        "runs": [str(side.path) for side in sides],
        "settings": differing([side.settings for side in sides]),
        "made_with": differing([side.made_with for side in sides]),
        "results": _results(sides),
        "differences": differences(sides),
        "intervals": {
            key: [
                side.intervals[key].to_json() if key in side.intervals else None for side in sides
            ]
            for key in dict.fromkeys(key for side in sides for key in side.intervals)
        },
    }


def show(sides: Sequence[Side], console: Console) -> None:
    """Show what differs: settings, what the runs were made with, results."""
    for letter, side in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", sides, strict=False):
        console.print(f"{letter}  {side.title}", markup=False, soft_wrap=True)
    for title, maps in (
        ("settings", [side.settings for side in sides]),
        ("made with", [side.made_with for side in sides]),
    ):
        if found := _cells(maps):
            _print(title, found, sides, console)
        else:
            console.print(f"{title}: no difference")
    apart = differences(sides)
    rows = {}
    for key, row in _results(sides).items():
        name, factor, digits = _form(key)
        cells = [_number(value, factor, digits) for value in row]
        cells = [_with_interval(cell, side, key) for cell, side in zip(cells, sides, strict=True)]
        if len(sides) == 2:
            cells.append(_number(apart[key][0], factor, digits, sign=True))
        rows[name] = cells
    if rows:
        _print("results", rows, sides, console, last="B - A" if len(sides) == 2 else None)
    known = [side.architecture for side in sides]
    if None not in known:
        console.print(_of_architectures([each for each in known if each is not None]))


def _print(
    title: str,
    rows: Mapping[str, Sequence[str]],
    sides: Sequence[Side],
    console: Console,
    *,
    last: str | None = None,
) -> None:
    right = last is not None or title == "results"
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(title, overflow="fold")
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(sides)] + ("" if last is None else "-"):
        header = str(last) if letter == "-" else letter
        table.add_column(header, overflow="fold", justify="right" if right else "left")
    for name, cells in rows.items():
        table.add_row(Text(name), *map(Text, cells))
    console.print(table)


def _cells(maps: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the names and the cells of what differs.

    Where another option was taken, its class stands for the settings that only one option has.
    """
    rows = differing(maps)
    heads = {key.removesuffix(CLASS): 0 for key in rows if key.endswith(CLASS)}
    kept = {}
    for key in rows:
        head = next((head for head in heads if key.startswith(f"{head}.")), None)
        if head is None or key == f"{head}{CLASS}" or all(key in each for each in maps):
            kept[key] = [_shown(each[key]) if key in each else "-" for each in maps]
        else:
            heads[head] += 1
    return {_named(key, heads): cells for key, cells in kept.items()}


def _named(key: str, heads: Mapping[str, int]) -> str:
    """Return the name of a setting; ``sampler`` for the class that the option builds."""
    head = key.removesuffix(CLASS)
    own = f" (and {heads[head]} settings of one alone)" if heads.get(head) else ""
    return printable(head + own)


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()  # as YAML writes them
    text = str(value)
    if text.startswith("nasrun."):
        text = text.rpartition(".")[2]  # a class, without its module
    return printable(shortened(text, MAX_CELL_CHARACTERS))


def _form(key: str) -> tuple[str, float, int | None]:
    """Return the title of a result, the factor to its unit, and its decimals."""
    column = COLUMNS.get(key)
    if column is None:
        return printable(key.removeprefix("spent_").replace("_", " ")), 1, None
    return column.title, column.factor, column.digits


def _number(value: float | None, factor: float, digits: int | None, *, sign: bool = False) -> str:
    if value is None:
        return "-"
    plus = "+" if sign else ""
    if digits is None:
        return f"{value * factor:{plus},.6g}"
    return f"{value * factor:{plus},.{digits}f}"


def _with_interval(cell: str, side: Side, key: str) -> str:
    """Add the interval of a measure, if it is known."""
    known = side.intervals.get(key)
    if known is None or key in COSTS or not math.isfinite(known.low + known.high):
        return cell
    _, factor, digits = _form(key)
    low, high = (_number(value, factor, digits) for value in (known.low, known.high))
    return f"{cell} ({low} to {high})"


def _of_architectures(known: Sequence[tuple[Any, ...]]) -> str:
    if all(each == known[0] for each in known):
        return "architecture: the same"
    if len({len(each) for each in known}) > 1:
        return "architecture: of another space"
    count = sum(len(set(choices)) > 1 for choices in zip(*known, strict=True))
    return f"architecture: {count} of {len(known[0])} decisions differ"
