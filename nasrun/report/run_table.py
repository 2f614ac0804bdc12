"""The list of runs on the screen, as CSV and as JSON, and the filters of ``nasrun runs``."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Container, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from nasrun.report.run_files import RunDirectory
from nasrun.report.run_list import DONE, FAILED, RUNNING, STOPPED, Entry, name_of, short_name
from nasrun.run.files import csv_text, printable
from nasrun.run.provenance import of_machine

SHOWN_RESULTS = (
    ("test_accuracy", "test {:.2f} %", 100),
    ("true_accuracy", "true {:.2f} %", 100),
    ("kendall", "τ-b {:.3f}", 1),
    ("validation_accuracy", "val. {:.2f} %", 100),
    ("score", "score {:.2f} %", 100),
)
"""The number that a run ends with: the first of these that it has, its words, its factor."""

NOT_SHOWN = ("name", "notes", "outputs", "resume")
"""Settings that are no part of what differs from the defaults."""

STYLES = {RUNNING: "cyan", DONE: "", FAILED: "red", STOPPED: "yellow"}
"""Colours of the statuses on the screen."""

TITLES = ("run", "when", "status", "task", "result", "evals", "images", "time", "what differs")
"""Titles of the columns on the screen."""

NUMBERS = ("result", "evals", "images", "time")
"""Columns that end at the right."""

MIN_NAME_WIDTH, MAX_NAME_WIDTH = 6, 16
"""Characters of a name on the screen."""

MIN_LAST_WIDTH = 12
"""Characters of what differs on the screen, where names leave room for them."""


class Filter:
    """Words and settings by which runs are chosen; all of them must fit.

    A word is part of the task, the name, the notes, the folder or an override; ``KEY=VALUE`` is the
    status, or a setting as it was, typed or not.
    """

    def __init__(self, words: Sequence[str], targets: Mapping[str, str]) -> None:
        """targets: of ``GROUP=OPTION`` among the words the class that the option builds."""
        self.words = [word.lower() for word in words if "=" not in word]
        self.settings = [word for word in words if "=" in word]
        self.targets = targets

    def __call__(self, run: RunDirectory, status: str) -> bool:
        overrides = [str(word) for word in run.overrides_of_job]
        if self.words:
            known = (run.record.get("task"), name_of(run), run.config.get("notes"), run.path.name)
            text = " ".join([*map(str, known), run.path.parent.name, *overrides]).lower()
            if not all(word in text for word in self.words):
                return False
        return all(self._fits(word, run.config, overrides, status) for word in self.settings)

    def _fits(
        self, word: str, config: Mapping[str, Any], overrides: Sequence[str], status: str
    ) -> bool:
        key, _, value = word.partition("=")
        if key == "status":
            return value == status
        if word in overrides:
            return True
        node: Any = config
        for name in key.rpartition("@")[2].replace("/", ".").split("."):
            if not isinstance(node, Mapping) or name not in node:
                return False
            node = node[name]
        if isinstance(node, Mapping):
            return word in self.targets and bool(node.get("_target_") == self.targets[word])
        return bool(_plain(node) == _plain(value))


def _plain(value: Any) -> Any:
    """Return a value such that equal ones are equal however they are written."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value).lower() if isinstance(value, str) else json.dumps(value)


def show(found: Sequence[Entry], console: Console, *, jobs: bool = False) -> None:
    """Show one line for each run or sweep; what differs from the defaults is cut to the width.

    jobs: whether they are the jobs of one sweep, which go by their numbers, and of which only
    what they do not share is shown.
    """
    shared: set[str] = set()
    if jobs and len(found) > 1:
        shared = set.intersection(*(set(entry.overrides) for entry in found))
    rows = [
        (
            *(
                entry.path.name if jobs else entry.word,
                when(entry.started),
                entry.status,
                entry.task,
                result_words(entry),
            ),
            *(amount(entry.spent.get(name)) for name in ("evaluations", "images")),
            *(duration(seconds(entry)), " ".join([*differing(entry, shared), *remarks(entry)])),
        )
        for entry in found
    ]
    widths = [max(map(_length, column)) for column in zip(TITLES, *rows, strict=True)]
    widths[0] = min(widths[0], MAX_NAME_WIDTH)
    gaps = len(widths)  # one in front, one between each two
    left = console.width - gaps - sum(widths[:-1])
    if left < MIN_LAST_WIDTH:
        widths[0], left = max(widths[0] + left - MIN_LAST_WIDTH, MIN_NAME_WIDTH), MIN_LAST_WIDTH
    widths[-1] = min(widths[-1], left)
    # rich's own tables take five times as long, which is felt over thousands of runs.
    console.print(Text(_line(TITLES, widths), "bold"), soft_wrap=True)
    console.print(f" {'─' * (sum(widths) + gaps - 1)}", soft_wrap=True)
    begin = 3 + sum(widths[:2])
    for entry, row in zip(found, rows, strict=True):
        line, style = _line(row, widths), STYLES[entry.status]
        if style and console.is_terminal:
            text = Text(line)
            text.stylize(style, begin, begin + len(entry.status))
            console.print(text, soft_wrap=True)
        else:  # what rich does for a line takes longer than to read a run
            console.file.write(f"{line}\n")


def _length(cell: str) -> int:
    """Return the places that a printable text takes on the screen."""
    return len(cell) if cell.isascii() else cell_len(cell)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Return the cells of a row, cut or filled to the widths of their columns."""
    shown = []
    for title, cell, width in zip(TITLES, cells, widths, strict=True):
        length = _length(cell)
        if length > width:
            shown.append(f"{set_cell_size(cell, width - 1)}…")
        else:
            spaces = " " * (width - length)
            shown.append(spaces + cell if title in NUMBERS else cell + spaces)
    return f" {' '.join(shown)}".rstrip()


def result_words(entry: Entry) -> str:
    """Return the number that a run has ended with in words, or how many jobs are done."""
    if entry.jobs is not None:
        return f"{entry.jobs.get(DONE, 0)} of {sum(entry.jobs.values())} jobs"
    for name, words, factor in SHOWN_RESULTS:
        value = entry.result.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            return words.format(factor * value)
    return "-"


def differing(entry: Entry, shared: Container[str] = ()) -> list[str]:
    """Return the overrides that say what a run is, first the run that it began with, in short.

    shared: overrides that are left out.
    """
    kept: list[str] = []
    first: list[str] = []
    for word in entry.overrides:
        key, _, value = word.partition("=")
        if word in shared:
            continue
        if key == "from":
            first.append(f"from={short_name(Path(value.strip(chr(39))))}")
        elif not (key in NOT_SHOWN or key.startswith("hydra") or of_machine(word)):
            kept.append(word)
    return first + kept


def remarks(entry: Entry) -> list[str]:
    """Return the notes about a run, behind the mark of a comment."""
    return [f"# {entry.notes}"] if entry.notes else []


def seconds(entry: Entry) -> float | None:
    """Return the computing time of a run that is done, or the age of one that is running."""
    if entry.status == RUNNING:
        return max(time.time() - entry.started, 0.0)
    value = entry.result.get("seconds")
    return float(value) if isinstance(value, int | float) else None


def when(started: float) -> str:
    """Return the time of a beginning today, the day of one this year, or else the month."""
    try:
        begun, now = datetime.fromtimestamp(started), datetime.now()
    except (OverflowError, OSError, ValueError):
        return "-"
    if begun.date() == now.date():
        return begun.strftime("%H:%M")
    return begun.strftime("%d %b" if begun.year == now.year else "%Y-%m")


def duration(value: float | None) -> str:
    """Return seconds in the unit that suits them, e.g. ``3.4 h``."""
    if value is None or not math.isfinite(value):
        return "-"
    for unit, size, limit in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48)):
        if value < limit * size:
            return f"{value / size:.{int(unit == 'h')}f} {unit}"
    return f"{value / 86400:,.1f} d"


def amount(value: Any) -> str:
    """Return a count with two or three digits, e.g. ``1.2M``."""
    if type(value) not in (int, float) or not math.isfinite(value):
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            scaled = value / size
            return f"{scaled:.{int(scaled < 100)}f}{unit}"
    return f"{value:.0f}"


def as_json(found: Sequence[Entry]) -> str:
    """Return all that is known of the runs as a JSON list."""
    return json.dumps([row(entry) for entry in found], indent=2, ensure_ascii=False)


def as_csv(found: Sequence[Entry]) -> str:
    """Return the runs as CSV: a column for each number of the results."""
    rows = []
    for entry in found:
        flat = row(entry)
        numbers = flat.pop("result")
        jobs = {f"jobs_{status}": count for status, count in (flat.pop("jobs") or {}).items()}
        spent = {f"spent_{key}": value for key, value in flat.pop("spent").items()}
        flat["overrides"] = " ".join(flat["overrides"])
        rows.append({**flat, **jobs, **spent, **numbers})
    columns = list(dict.fromkeys(key for each in rows for key in each))
    return csv_text(columns, ([each.get(name) for name in columns] for each in rows))


def row(entry: Entry) -> dict[str, Any]:
    """Return a run as plain data; of its result the numbers."""
    return {
        "run": entry.word,
        "kind": "run" if entry.jobs is None else "sweep",
        "status": entry.status,
        "task": entry.task,
        "name": entry.name,
        "notes": entry.notes,
        "started": _iso(entry.started),
        "overrides": list(entry.overrides),
        "directory": printable(str(entry.path)),
        "jobs": entry.jobs,
        "spent": _numbers(entry.spent),
        "result": _numbers(entry.result),
    }


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        printable(key): value
        for key, value in values.items()
        if type(value) in (int, float) and math.isfinite(value)
    }


def _iso(started: float) -> str | None:
    try:
        return datetime.fromtimestamp(started).astimezone().isoformat(timespec="seconds")
    except (OverflowError, OSError, ValueError):
        return None
