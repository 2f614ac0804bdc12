"""The log of what a run has said on the screen, as plain lines."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import BinaryIO

from rich.console import Console, RenderableType

from nasrun.run.files import open_for_writing
from nasrun.run.layout import SAID

WIDTH = 100
"""Columns of tables in the log."""


class SaidLog:
    """The lines that a run says: kept until there is a directory, then written as they come.

    A run that goes on adds to its log, so nothing that was said is lost; a line that a kill has cut
    off is ended first. A resume that is refused before its first checkpoint leaves no line.
    """

    def __init__(self) -> None:
        self._waiting: list[str] = []
        self._file: BinaryIO | None = None

    def open(self, directory: Path, heading: str, *, go_on: bool) -> None:
        """Write the heading and all lines so far; go_on: behind those that are there.

        Raises UserError if the file is a link.
        """
        path = directory / SAID
        file = open_for_writing(path, keep=None if go_on else 0)
        if go_on and (end := file.seek(0, os.SEEK_END)):
            file.seek(end - 1)
            whole = file.read(1) == b"\n"
            file.write(b"\n" if whole else b"\n\n")  # an empty line before the heading
        self._file = file
        lines, self._waiting = self._waiting, []
        self.write("\n".join([f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {heading}", *lines]))

    def write(self, text: str) -> None:
        """Write lines, or keep them until the log is open."""
        if self._file is None:
            self._waiting.append(text)
            return
        self._file.write((text + "\n").encode(errors="backslashreplace"))
        self._file.flush()  # for programs that read along

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def as_text(shown: RenderableType) -> str:
    """Return a table, or whatever rich shows, as plain lines."""
    text = io.StringIO()
    console = Console(file=text, width=WIDTH, color_system=None, highlight=False)
    console.print(shown)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
