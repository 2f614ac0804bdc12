"""One run as the sections see it: its files, its search space, and common numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasrun.errors import UserError
from nasrun.report.run_files import RunDirectory
from nasrun.report.run_lines import Curves, TrialLine
from nasrun.report.words import number
from nasrun.run.commands import command
from nasrun.values import Architecture

if TYPE_CHECKING:
    from nasrun.search_space.base import SearchSpace  # needs torch, which is slow to import

MAX_WORDS = 1200
"""Characters of an architecture in words; more make no sense beside a point of a chart."""

STRANGE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, UserError)
"""Errors of a space over an architecture that is not its own."""


@dataclass(frozen=True)
class RunView:
    """A run that is reported.

    space: its search space; None: it cannot be built, so architectures are numbers.
    going: whether a process is working on the run now.
    """

    run: RunDirectory
    space: SearchSpace | None = None
    going: bool = False

    @cached_property
    def place(self) -> Path:
        """The absolute directory of the run."""
        return self.run.path.absolute()

    @cached_property
    def result(self) -> dict[str, Any]:
        """Content of result.json."""
        return self.run.result

    @cached_property
    def config(self) -> dict[str, Any]:
        """The whole configuration."""
        return self.run.config

    def setting(self, *keys: str) -> Any:
        """Return a value of the configuration; None if there is none."""
        node: Any = self.config
        for key in keys:
            node = node.get(key) if isinstance(node, Mapping) else None
        return node

    def value(self, name: str) -> float | None:
        """Return a finite number of the result; None if there is none."""
        return number(self.result.get(name))

    @cached_property
    def trials(self) -> list[TrialLine]:
        """The trials that could be read."""
        return self.run.trials[0]

    @cached_property
    def searched(self) -> list[TrialLine]:
        """The trials that the search itself scored, in order."""
        return [trial for trial in self.trials if trial.searched]

    @cached_property
    def curves(self) -> Curves:
        """The curves that could be read."""
        return self.run.curves[0]

    @cached_property
    def winner(self) -> Architecture | None:
        """The architecture that the run ended with; None if it has none."""
        try:
            return Architecture.from_json(self.result.get("architecture"))
        except UserError:
            return None

    @cached_property
    def data(self) -> dict[str, Any]:
        """The survey of the folders of images; empty for data sets without folders."""
        data = self.run.record.get("data")
        return data if isinstance(data, dict) else {}

    @cached_property
    def test_images(self) -> float | None:
        """How many test images were read; None if the run does not say so."""
        told = self.value("test_images")
        images = self.data.get("images")
        counts = images.get("test") if isinstance(images, dict) else None
        if told is None and isinstance(counts, list) and all(type(n) is int for n in counts):
            return float(sum(counts)) or None
        return told if told and told >= 1 else None

    @cached_property
    def scored_images(self) -> float | None:
        """How many validation images each score of the search was measured on; None: unknown."""
        found = {trial.images for trial in self.searched}
        return found.pop() if len(found) == 1 else None

    def lines_of(self, architecture: Architecture) -> list[str]:
        """Describe an architecture in lines; its choices if the space is not known."""
        if self.space is not None:
            try:
                return self.space.describe(self.space.check(architecture))
            except STRANGE:
                pass
        return [",".join(map(str, architecture.choices))]

    def words_of(self, architecture: Architecture) -> str:
        """Describe an architecture, not too long."""
        text = "\n".join(self.lines_of(architecture))
        return text if len(text) <= MAX_WORDS else f"{text[:MAX_WORDS]} …"

    def command(self, task: str, *words: str) -> str:
        """Return a command that starts from this run."""
        return command(task, f"from={self.place}", *words)

    @property
    def scales_differ(self) -> bool:
        """Whether networks of the search are smaller than the one that is retrained."""
        small, large = (self.setting("search_space", scale) for scale in ("search", "final"))
        return small is not None and large is not None and small != large
