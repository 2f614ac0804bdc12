"""The directory that the current command writes to, of a run or of a sweep."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from nasrun.run.layout import SWEEP_BEGUN, SWEEP_OPTIMUM, SWEEP_RECORD, SWEEP_REFUSALS


@dataclass
class Output:
    """The run or sweep directory of this process.

    made: the directory and its parents, as far as they did not exist before, deepest first.
    jobs: how many jobs the sweep has; 0: no sweep, or a sweeper that decides as it goes.
    swept: the overrides that take several values.
    """

    directory: Path
    sweep: bool
    made: list[Path] = field(default_factory=list)
    jobs: int = 0
    swept: frozenset[str] = frozenset()

    def clear(self) -> None:
        """Forget which jobs an earlier sweep in the directory had, and remove planted links.

        Hydra writes its own files without looking: a link of their names would be followed.
        """
        own = (SWEEP_BEGUN, SWEEP_REFUSALS)
        for name in (*own, SWEEP_RECORD, SWEEP_OPTIMUM):
            path = self.directory / name
            with suppress(OSError, ValueError):  # absent, a folder, or a name that cannot be
                if name in own or path.is_symlink() or path.stat().st_nlink > 1:
                    path.unlink()

    def remove_if_empty(self) -> None:
        """Remove the directories that this process made and left empty."""
        if self.sweep and [path.name for path in listed(self.directory)] == [SWEEP_RECORD]:
            (self.directory / SWEEP_RECORD).unlink()
        inside = sorted(listed(self.directory, "**/*"), reverse=True) if self.made else []
        if any(not path.is_dir() for path in inside):
            return
        for path in [*inside, *self.made]:
            with suppress(OSError, ValueError):  # not empty, or never made
                path.rmdir()


def listed(directory: Path, pattern: str = "*") -> list[Path]:
    try:
        return list(directory.glob(pattern))
    except (OSError, ValueError):  # a name that no directory can have
        return []


current: list[Output] = []
"""The output of the current command. Global, since Hydra never hands its callback out."""


def note(directory: Path, *, sweep: bool) -> Output:
    """Remember a directory that is about to be made."""
    directory = directory.absolute()
    made = [path for path in (directory, *directory.parents) if not _exists(path)]
    current[:] = [Output(directory, sweep, made)]
    return current[0]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # its name is too long
        return False
