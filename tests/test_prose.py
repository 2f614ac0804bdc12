"""The prose of the code base, as far as a test can read it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "nasrun"

MAX_LINE_CHARACTERS = 90
"""Length of the first line of a docstring."""

RIDDLES = re.compile(r"(What|Those|That|Of|By|Whose|Which|Where|Who|As|Whether it) ")
"""Beginnings that hide the subject or the verb of a docstring."""


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the docstrings of modules, classes and functions of a file, each with its place."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text:
                name = getattr(node, "name", "")
                yield (
                    f"{path.relative_to(PACKAGE.parent)}:{getattr(node, 'lineno', 1)} {name}",
                    text,
                )


def notes(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the string literals below assignments, which describe constants and fields."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Module | ast.ClassDef):
            continue
        for before, after in pairwise(node.body):
            if isinstance(before, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr):
                text = ast.literal_eval(after.value)
                yield f"{path.relative_to(PACKAGE.parent)}:{after.lineno}", text


def test_docstrings_say_at_once_what_a_thing_is_or_does():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for place, text in docstrings(path):
            first = text.splitlines()[0]
            paragraph = " ".join(text.partition("\n\n")[0].split())
            if len(first) > MAX_LINE_CHARACTERS:
                wrong.append(f"{place}: {len(first)} characters: {first}")
            elif RIDDLES.match(first):
                wrong.append(f"{place}: begins as a riddle: {first}")
            elif paragraph != first or not first.endswith((".", ":", "?")):
                wrong.append(f"{place}: the first line is no sentence: {first}")
    assert not wrong, "\n".join([f"{len(wrong)} docstrings:", *wrong])


def test_notes_on_constants_are_no_riddles():
    wrong = [
        f"{place}: {text}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for place, text in notes(path)
        if RIDDLES.match(text) or not text.rstrip().endswith((".", "``"))
    ]
    assert not wrong, "\n".join([f"{len(wrong)} notes:", *wrong])
