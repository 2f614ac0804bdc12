"""The words of a half-typed line as a shell reads them, and candidates as it wants them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

ESCAPED = frozenset(" \t\"'\\$&|;<>()*?[]{}#!`")
"""Characters that a shell does not take as they are outside of quotes."""

ESCAPED_IN_DOUBLE_QUOTES = frozenset('"\\$`')


@dataclass(frozen=True)
class Typed:
    """A line up to the cursor. words: those before the current one, without quotes.

    current: the word at the cursor, without quotes. quote: the one that is open in it, or "".
    kept: characters of ``current`` that bash keeps, since it replaces only what follows them.
    """

    words: tuple[str, ...]
    current: str
    quote: str
    kept: int


def read_line(line: str, breaks: str = "") -> Typed:
    """Split a line into the words after the program's name.

    breaks: characters that end a word for bash's completion (COMP_WORDBREAKS).
    """
    words: list[str] = []
    current, quote, kept, begun = "", "", 0, False
    characters = iter(line)
    for sign in characters:
        if quote:
            if sign == quote:
                quote = ""
            elif sign == "\\" and quote == '"':
                current += next(characters, "")
            else:
                current += sign
        elif sign.isspace():
            if begun:
                words.append(current)
            current, kept, begun = "", 0, False
            continue
        elif sign in "'\"":
            quote, kept = sign, len(current)
        elif sign == "\\":
            current += next(characters, "")
        else:
            current += sign
            if sign in breaks:
                kept = len(current)
        begun = True
    named = [index for index, word in enumerate(words) if PurePath(word).name == "nasrun"]
    first = named[0] + 1 if named else 1
    return Typed(tuple(words[first:]), current, quote, kept)


def escaped(text: str, quote: str) -> str:
    """Return ``text`` so that a shell reads it back, inside of an open ``quote`` or of none."""
    if quote == "'":
        return text.replace("'", "'\\''")
    special = ESCAPED_IN_DOUBLE_QUOTES if quote else ESCAPED
    return "".join(f"\\{sign}" if sign in special else sign for sign in text)
