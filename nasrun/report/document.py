"""A report as a list of blocks, which a page and a text write in their own ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Tone = Literal["plain", "small", "good", "warning", "error"]


@dataclass(frozen=True)
class Text:
    """A paragraph. tone: small: a remark; warning, error: the reader must not miss it."""

    words: str
    tone: Tone = "plain"
    kind: Literal["text"] = "text"


@dataclass(frozen=True)
class Figures:
    """The few large numbers of a headline: (value, what it is, a remark or an empty string)."""

    rows: Sequence[tuple[str, str, str]]
    kind: Literal["figures"] = "figures"


@dataclass(frozen=True)
class Facts:
    """Names and values, one a line."""

    rows: Sequence[tuple[str, str]]
    kind: Literal["facts"] = "facts"


@dataclass(frozen=True)
class Grid:
    """A table. rows: cells as texts. words: columns of words, by index; others hold numbers.

    folded: title of a long table that the page shows only when it is asked for.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    words: Sequence[int] = (0,)
    folded: str = ""
    kind: Literal["grid"] = "grid"


@dataclass(frozen=True)
class Command:
    """A command to paste into a shell. label: what it is for."""

    words: str
    label: str = ""
    kind: Literal["command"] = "command"


@dataclass(frozen=True)
class Lines:
    """Lines of a fixed width, such as an architecture in words."""

    lines: Sequence[str]
    kind: Literal["lines"] = "lines"


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    items: Sequence[str]
    kind: Literal["points"] = "points"


@dataclass(frozen=True)
class Chart:
    """A chart of plotly. traces, layout: as plotly takes them; every text in them is escaped.

    height: in pixels. command: the beginning of the command that a click on a point shows; its end
    is the point's ``customdata``. Empty: nothing can be clicked.
    """

    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    caption: str
    height: int = 340
    command: str = ""
    kind: Literal["chart"] = "chart"


@dataclass(frozen=True)
class Picture:
    """A picture. source: a URL that holds its data. caption: what it shows.

    It may be a stranger's: a browser runs no scripts in it.
    svg: an element that takes its place in the page, of nothing but lines and texts.
    """

    source: str
    caption: str
    svg: str = ""
    kind: Literal["picture"] = "picture"


Block = Text | Figures | Facts | Grid | Command | Lines | Points | Chart | Picture


@dataclass(frozen=True)
class Section:
    """A titled part of a report; without blocks it is left out. key: its name in links."""

    key: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Document:
    """A report. title: the run or sweep. asked: what was asked, in one sentence."""

    title: str
    asked: str
    sections: Sequence[Section]

    @property
    def shown(self) -> list[Section]:
        """The sections that have something to show."""
        return [section for section in self.sections if section.blocks]
