"""Small tables and pictures of a run, for tasks that have no sections of their own."""

from __future__ import annotations

import base64
from pathlib import Path

from nasrun.errors import UserError
from nasrun.report.document import Block, Grid, Picture, Section
from nasrun.report.run_lines import read_rows
from nasrun.report.sections.view import RunView
from nasrun.report.words import number
from nasrun.run.files import read_bytes

OWN_SECTIONS = ("search", "supernet", "retrain", "rank", "compare")
"""Tasks whose files have sections of their own."""

MAX_FILES = 6
"""Tables, and pictures, that are shown."""

MAX_ROWS, MAX_COLUMNS = 60, 12
"""Size of a table that is shown; a larger one is data for programs."""

MAX_PICTURE_BYTES = 2**20
"""Size of a picture that is shown."""


def others(view: RunView) -> Section:
    """Show the tables and pictures of a task without sections of its own."""
    blocks: list[Block] = []
    if view.run.task not in OWN_SECTIONS:
        names = sorted(path.name for path in view.run.path.glob("*.*"))
        pictures = [name for name in names if name.endswith(".png")][:MAX_FILES]
        tables = [name for name in names if name.endswith(".csv")][:MAX_FILES]
        blocks += [block for name in tables for block in table(view.run.path / name)]
        blocks += [block for name in pictures for block in picture(view.run.path / name)]
    return Section("files", "Tables and pictures", blocks)


def table(path: Path) -> list[Block]:
    """Return a small table; empty if it is large, or none."""
    rows = read_rows(path)
    columns = list(rows[0]) if rows else []
    if not columns or len(columns) > MAX_COLUMNS or len(rows) > MAX_ROWS:
        return []
    cells = [[shown(row.get(name, "")) for name in columns] for row in rows]
    words = [
        place
        for place, name in enumerate(columns)
        if any(not is_number(row.get(name, "")) for row in rows)
    ]
    return [Grid([name[:60] for name in columns], cells, path.name[:100], words=words)]


def is_number(cell: str) -> bool:
    """Tell whether a cell holds a number, or nothing."""
    try:
        return not cell or number(float(cell)) is not None
    except ValueError:
        return False


def shown(cell: str) -> str:
    """Return a cell as it is shown: numbers with at most six digits, texts not too long."""
    return f"{float(cell):.6g}" if cell and is_number(cell) else cell[:100]


def picture(path: Path) -> list[Block]:
    """Return a picture; empty if it is large, a link, or no file."""
    try:
        data = base64.b64encode(read_bytes(path, MAX_PICTURE_BYTES)).decode()
    except (OSError, UserError):
        return []
    return [Picture(f"data:image/png;base64,{data}", path.name[:100])]
