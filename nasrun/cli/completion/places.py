"""Files, folders and runs that the beginning of a word may name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from nasrun.run.files import at_home
from nasrun.run.layout import RECORD, SWEEP_RECORD

KINDS_OF_PATHS = (
    *("architecture", "outputs", "root", "path", "store", "truth_store", "table", "dir", "into"),
    *("out", "subdir"),
)
"""Last names of settings that are paths."""

LATEST = "latest"
"""The word for the newest run."""

MAX_RUNS = 20
"""Newest runs that are listed, at most."""

MAX_PATHS = 300
"""Entries of a folder that are listed, at most."""

_NAME = re.compile(rb'^    "name": "([\w.-]+)"', re.MULTILINE)
"""The setting ``name`` in run.json, two levels deep."""


def paths(typed: str, *, only_folders: bool = False) -> Iterator[str]:
    """Yield the files and folders, these with a slash at their end, that begin as typed."""
    base, slash, start = typed.rpartition("/")
    count = 0
    with suppress(OSError, ValueError):  # no such folder
        for entry in sorted(os.scandir(at_home(f"{base}{slash}") or "."), key=lambda e: e.name):
            if not entry.name.startswith(start) or (entry.name[0] == "." and not start):
                continue
            if entry.is_dir():
                yield f"{base}{slash}{entry.name}/"
            elif not only_folders:
                yield f"{base}{slash}{entry.name}"
            count += 1
            if count == MAX_PATHS:
                return


def folders(typed: str) -> Iterator[str]:
    """Yield the folders that begin as typed."""
    return paths(typed, only_folders=True)


def runs(typed: str, outputs: str | None = None) -> Iterator[str]:
    """Yield names and directories of runs and sweeps, the newest first.

    outputs: the folder of runs, if the command line names one.
    """
    found: list[tuple[float, Path]] = []
    with suppress(OSError, ValueError):
        found += [
            (path.stat().st_mtime, path)
            for path in at_home(outputs or "outputs").glob("*/*")
            if any((path / name).is_file() for name in (RECORD, SWEEP_RECORD))
        ]
    newest = [path for _, path in sorted(found, reverse=True)[:MAX_RUNS]]
    if newest:
        yield LATEST
    names = [name for path in newest if (name := _name(path)) is not None]
    yield from dict.fromkeys(names)
    yield from (str(path) for path in newest)


def _name(run: Path) -> str | None:
    """Return the name that the user gave a run, from the configuration at the end of its record."""
    with suppress(OSError, ValueError):
        with (run / RECORD).open("rb") as file:
            found = _NAME.search(file.read(2**16))
        return found[1].decode() if found else None
    return None
