"""Pages of help in two columns, names and meanings, as wide as the screen."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

MAX_PAGE_CHARACTERS = 100
"""Width of a page, at most: longer lines are hard to read."""

MAX_NAME_CHARACTERS = 30
"""Width of the column of names, at most; a longer name has a line of its own."""

_ITEM = re.compile(r"\w+(, \w+)*: ")


def width_of(console: Console) -> int:
    """Return the width of a page, in characters."""
    return max(min(console.width, MAX_PAGE_CHARACTERS), 40)


def section(title: str, rows: Iterable[tuple[str, str]], console: Console) -> None:
    """Print a title, and below it names beside their meanings; nothing if there are no rows."""
    rows = list(rows)
    if not rows:
        return
    console.print()
    console.print(Text(title, style="bold"))
    fitting = [len(name) for name, _ in rows if len(name) <= MAX_NAME_CHARACTERS]
    left = max(fitting, default=8)
    for name, text in rows:
        lines = textwrap.wrap(text, width_of(console) - left - 4, break_on_hyphens=False)
        first = lines[:1] if len(name) <= left else []
        row = Text("  ").append(name.ljust(left if first else 0), style="cyan")
        _line(row.append(f"  {first[0]}" if first else ""), console)
        for line in lines[len(first) :]:
            _line(Text(" " * (left + 4) + line), console)


def paragraph(text: str, console: Console, *, indent: int = 0, style: str = "") -> None:
    """Print a text, wrapped."""
    space = " " * indent
    for line in textwrap.wrap(text, width_of(console) - indent, break_on_hyphens=False):
        _line(Text(space).append(line, style=style), console)


def docstring_text(text: str, console: Console, *, indent: int = 2) -> None:
    """Print a docstring, wrapped; indented blocks and lists of arguments keep their lines."""
    blocks = re.split(r"\n\s*\n", text.replace("``", "`"))
    for number, block in enumerate(blocks):
        if number:
            console.print()
        lines = block.splitlines()
        if any(re.match(r"\s|.*\S {2,}\S", line) for line in lines):
            for line in lines:
                _line(Text(" " * indent + line), console)
            continue
        items: list[str] = []
        for line in lines:
            if not items or _ITEM.match(line):
                items.append(line)
            else:
                items[-1] += f" {line}"
        for item in items:
            paragraph(item, console, indent=indent)


def heading(name: str, text: str, console: Console) -> None:
    """Print the first line of a page: ``NAME: what it is``."""
    lines = textwrap.wrap(f"{name}: {text}" if text else name, width_of(console))
    for number, line in enumerate(lines or [name]):
        bold = len(name) if number == 0 else 0
        _line(Text(line[:bold], style="bold").append(line[bold:], style="default"), console)


def _line(text: Text, console: Console) -> None:
    console.print(text, soft_wrap=True)
