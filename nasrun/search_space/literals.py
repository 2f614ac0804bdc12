"""Read Python's literals from text that may be a stranger's; nothing is evaluated."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

MAX_DEPTH = 8
"""Brackets inside of each other; a genotype has four."""

MAX_VALUES = 20_000
"""Values in one literal; the largest published genotype has some hundred."""

_SPACE = re.compile(r"\s*(?:#[^\n]*(?:\n|\Z)\s*)*")
_TOKEN = re.compile(
    r"""(?P<string>'[^'\\\n]{0,200}'|"[^"\\\n]{0,200}")"""
    r"|(?P<number>-?[0-9]{1,9}(?![0-9])(?:\.[0-9]{0,20})?(?:[eE][+-]?[0-9]{1,3})?)"
    r"|(?P<name>[A-Za-z_]\w{0,99})|(?P<sign>[()\[\]{},:=])",
    re.ASCII,
)
_WORDS: dict[str, bool | None] = {"None": None, "True": True, "False": False}


class LiteralError(Exception):
    """A text that is no literal.

    at: the place where it stops to be one. field: name of the outermost field around it, if any;
    start: the place where the value of that field begins.
    """

    def __init__(self, at: int, field: str | None, start: int) -> None:
        super().__init__(at, field, start)
        self.at, self.field, self.start = at, field, start


@dataclass(frozen=True)
class Call:
    """A name with arguments in round brackets, such as ``range(2, 6)``; it is never called."""

    name: str
    arguments: list[Any] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    """The places in the text where the values of the fields begin."""

    def __str__(self) -> str:
        fields = [f"{key}={value}" for key, value in self.fields.items()]
        return f"{self.name}({', '.join([*map(repr, self.arguments), *fields])})"


def read_literal(text: str, at: int = 0) -> tuple[Any, int]:
    """Read the literal that begins at a place; returns it, and the place behind it.

    Strings, numbers, None, True, False, tuples, lists, dictionaries with strings as keys, and
    calls as ``Call``; comments are passed over. Raises LiteralError over anything else.
    """
    reader = _Reader(text, at)
    return reader.value(0), reader.at


def skip_space(text: str, at: int) -> int:
    """Return the next place that is no space and in no comment."""
    found = _SPACE.match(text, at)
    assert found is not None  # it matches nothing as well  # noqa: S101
    return found.end()


class _Reader:
    """Reads literals by recursion. field: the outermost field that is being read."""

    def __init__(self, text: str, at: int) -> None:
        self.text, self.at = text, at
        self.field: str | None = None
        self.field_start = at
        self.count = 0

    def _error(self, at: int) -> LiteralError:
        return LiteralError(at, self.field, self.field_start)

    def value(self, depth: int) -> Any:
        """Read the value that begins here. depth: brackets around it."""
        kind, word, start = self._take()
        self.count += 1
        if depth > MAX_DEPTH or self.count > MAX_VALUES:
            raise self._error(start)
        if kind == "string":
            return word[1:-1]
        if kind == "number":
            return float(word) if re.search(r"[.eE]", word) else int(word)
        if kind == "name":
            if word in _WORDS:
                return _WORDS[word]
            if self._peek() == "(":
                return self._call(word, depth)
        elif word == "(":
            items, comma = self._items(")", depth)
            return tuple(items) if comma or len(items) != 1 else items[0]
        elif word == "[":
            return self._items("]", depth)[0]
        elif word == "{":
            return self._mapping(depth)
        raise self._error(start)

    def _items(self, end: str, depth: int) -> tuple[list[Any], bool]:
        """Read values up to a closing bracket; returns them, and whether the last has a comma."""
        found: list[Any] = []
        while self._peek() != end:
            found.append(self.value(depth + 1))
            if not self._comma(end):
                return found, False
        self._take()
        return found, bool(found)

    def _comma(self, end: str) -> bool:
        """Take a comma, or the closing bracket; returns whether it was a comma."""
        _, word, start = self._take()
        if word not in (",", end):
            raise self._error(start)
        return word == ","

    def _mapping(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self._peek() != "}":
            kind, key, start = self._take()
            if kind != "string" or self._take()[1] != ":":
                raise self._error(start)
            self._enter(key[1:-1], depth)
            found[key[1:-1]] = self.value(depth + 1)
            if not self._comma("}"):
                return found
        self._take()
        return found

    def _call(self, name: str, depth: int) -> Call:
        found = Call(name)
        self._take()
        while self._peek() != ")":
            before = self.at
            kind, word, _ = self._take()
            if kind == "name" and self._peek() == "=":
                self._take()
                if word in found.fields:
                    raise self._error(before)
                self._enter(word, depth)
                found.starts[word] = self.field_start
                found.fields[word] = self.value(depth + 1)
            else:
                self.at = before
                found.arguments.append(self.value(depth + 1))
            if not self._comma(")"):
                return found
        self._take()
        return found

    def _enter(self, name: str, depth: int) -> None:
        if depth == 0:
            self.field, self.field_start = name, skip_space(self.text, self.at)

    def _peek(self) -> str:
        before = self.at
        word = self._take()[1]
        self.at = before
        return word

    def _take(self) -> tuple[str, str, int]:
        """Take the next token; returns its kind, its text and where it begins."""
        start = skip_space(self.text, self.at)
        found = _TOKEN.match(self.text, start)
        if found is None:
            raise self._error(start)
        self.at = found.end()
        return str(found.lastgroup), found[0], start
