"""A report as Markdown: the same numbers as tables, for an issue or an appendix."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from nasrun.report.document import (
    Block,
    Chart,
    Command,
    Document,
    Facts,
    Figures,
    Grid,
    Lines,
    Picture,
    Points,
    Text,
)
from nasrun.run.files import printable

MAX_ROWS = 200
"""Rows of a table; longer ones are in the page and in the files of the run."""


def markdown(document: Document) -> str:
    """Return the text of a document."""
    parts = [
        f"# {escaped(document.title)}",
        "<!-- nasrun report -->",
        escaped(document.asked),
    ]
    for section in document.shown:
        parts.append(f"## {escaped(section.title)}")
        for block in section.blocks:
            parts += list(written(block))
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Return a text of one line in which nothing is markup."""
    line = " ".join(printable(word) for word in text.split())
    return re.sub(r"([\\`*\[\]<>|#])", r"\\\1", line)


def fenced(text: str) -> str:
    """Return lines of a fixed width; no run of backquotes in them ends the block."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    lines = "\n".join(printable(line) for line in text.splitlines())
    return f"{fence}\n{lines}\n{fence}"


def written(block: Block) -> Iterator[str]:
    """Yield the paragraphs of a block."""
    match block:
        case Text():
            mark = "**" if block.tone in ("warning", "error") else ""
            yield f"{mark}{escaped(block.words)}{mark}"
        case Figures():
            rows = [[name, value, remark] for value, name, remark in block.rows]
            yield table(["", "value", ""], rows, (0, 2))
        case Facts():
            yield table(["", ""], block.rows, (0, 1))
        case Points():
            yield "\n".join(f"- {escaped(item)}" for item in block.items)
        case Lines():
            yield fenced("\n".join(block.lines))
        case Command():
            if block.label:
                yield f"{escaped(block.label[0].upper() + block.label[1:])}:"
            yield fenced(block.words)
        case Grid():
            yield table(block.columns, block.rows[:MAX_ROWS], block.words)
            if len(block.rows) > MAX_ROWS:
                yield f"{len(block.rows) - MAX_ROWS:,} more rows are in the page."
            if block.caption:  # the name of a file stays as it is
                said = block.caption
                yield escaped(said[0].upper() + said[1:] + "." if " " in said else said)
        case Chart():
            yield f"Chart (in the page): {escaped(block.caption)}"
        case Picture():
            yield f"Picture (in the page): {escaped(block.caption)}."


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int] = (0,)
) -> str:
    """Return a table; words: columns that are aligned to the left."""
    rule = [":--" if index in words else "--:" for index in range(len(columns))]
    lines = [[escaped(column) for column in columns], rule]
    lines += [[escaped(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
