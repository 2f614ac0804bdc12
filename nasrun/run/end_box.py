"""The end of a run on the screen: a box of a few numbers, and the commands to type next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAX_ROWS = 6
"""Rows of the box; with its edges it has eight lines."""

WIDTH = 80
"""Columns of the box, as of a usual terminal."""


@dataclass(frozen=True)
class RunEnd:
    """The end of a run: a title, rows of a label and a text, commands by importance."""

    title: str
    rows: tuple[tuple[str, str], ...]
    commands: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.rows) > MAX_ROWS:
            raise ValueError(f"{len(self.rows)} rows: the box has {MAX_ROWS} at most")

    def lines(self, width: int = WIDTH, *, ascii_only: bool = False) -> Iterator[str]:
        """Yield the lines of the box, at most eight, and below it one for each command.

        A text that does not fit, e.g. a long path, stands below the box, where it can be copied;
        so do the commands, for no edge may be copied with them.
        """
        edges = list("++++-|" if ascii_only else "╭╮╰╯─│")
        top_left, top_right, bottom_left, bottom_right, line, side = edges
        labels = max((len(label) for label, _ in self.rows), default=0)
        inside = width - 4
        long = [row for row in self.rows if labels + 2 + len(row[1]) > inside]
        title = f"{line} {self.title[: inside - 2]} "
        yield f"{top_left}{title.ljust(width - 2, line)}{top_right}"
        for label, text in self.rows:
            if (label, text) not in long:
                yield f"{side} {f'{label:{labels}}  {text}':{inside}} {side}"
        yield f"{bottom_left}{line * (width - 2)}{bottom_right}"
        for label, text in long:
            yield f"{label:{labels}}  {text}"
        yield from self.commands


def duration(seconds: float) -> str:
    """Write a time as people say it: 8 s, 2 min 13 s, 3 h 05 min, 2 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def accuracy(value: float, low: float, high: float, images: int) -> str:
    """Write an accuracy in [0, 1] with its interval at 95 %, and the images it was measured on."""
    return (
        f"{100 * value:.2f} %  (95 % interval {100 * low:.1f} to {100 * high:.1f}, "
        f"{images:,} images)"
    )


def sizes(params: float, macs: float) -> str:
    """Write the size of a network."""
    return f"{params / 1e6:.3f} M parameters, {macs / 1e6:.2f} M multiply-adds"


def first_known(commands: Sequence[str], known: Sequence[str] | None, count: int = 3) -> list[str]:
    """Return the first commands of which nasrun has the task; known: names; None: all."""

    def is_known(command: str) -> bool:
        words = command.split()
        return known is None or words[:1] != ["nasrun"] or words[1] in known

    return [command for command in commands if is_known(command)][:count]
