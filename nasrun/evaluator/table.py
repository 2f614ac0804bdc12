"""Scores looked up in a table: known accuracies instead of training."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import IO, Annotated

from pydantic import Field, PositiveFloat

from nasrun.dataset.base import Splits
from nasrun.errors import UserError
from nasrun.evaluator.base import Evaluator, GatesOf, choices_of
from nasrun.run.compute import Compute
from nasrun.run.monitor import Monitor
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.streams import Streams
from nasrun.values import Architecture, Trial

LONGEST_LINE = 2**20
"""Characters; the longest of the published tables has some hundreds."""


class TableEvaluator(Evaluator):
    """A column of a CSV file (plain, or packed as .gz), read whole when the search starts.

    path: the file; architecture: its column of architectures, as ``SearchSpace.parse`` takes them;
    score: its column of scores, or several, one for each training seed, whose mean is taken;
    scale: what they are multiplied by to be accuracies in [0, 1].
    """

    needs_supernet = False

    def __init__(
        self,
        *,
        path: str | None,
        architecture: str,
        score: str | Annotated[list[str], Field(min_length=1)],
        scale: PositiveFloat,
    ) -> None:
        self.path = path
        self.architecture = architecture
        self.columns = [score] if isinstance(score, str) else score
        self.scale = scale

    def start(self, space: SearchSpace, splits: Splits, compute: Compute, streams: Streams) -> None:
        """Raises UserError where any line of the table is not as it must be."""
        if self.path is None:
            raise UserError("evaluator.path is missing: the table, a .csv or .csv.gz file")
        self.space, self.problem, self.seed = space, splits.problem, streams.seed
        self.file = Path(self.path)
        self.by_seed = self._read()

    def score(
        self,
        architectures: Sequence[Architecture],
        supernet: Supernet | None,
        monitor: Monitor,
        gates_of: GatesOf = choices_of,
    ) -> Iterator[Trial]:
        """Raises UserError where the table lacks an architecture."""
        for architecture in architectures:
            if architecture not in self.by_seed:
                raise UserError(self._missing(architecture))
            yield Trial(
                architecture,
                fmean(self.by_seed[architecture]),
                self.space.cost(architecture, self.problem),
                self.seed,
                {"evaluator": "table", "table": self.file.name, "column": ", ".join(self.columns)},
            )

    def _read(self) -> dict[Architecture, list[float]]:
        """The scores of each architecture, in the order of the columns."""
        scores: dict[Architecture, list[float]] = {}
        lines: dict[Architecture, int] = {}
        strange: UserError | None = None
        for line, text, values in self._rows():
            place = f"{self.file}, line {line}"
            try:
                architecture = self.space.parse(text)
            except UserError as error:
                strange = strange or UserError(f"{place}: {text[:80]!r}: {error}")
                continue
            if architecture in lines:
                raise UserError(
                    f"{place}: {text} has a score already, in line {lines[architecture]}"
                )
            lines[architecture] = line
            pairs = zip(self.columns, values, strict=True)
            scores[architecture] = [self._accuracy(value, key, place) for key, value in pairs]
        if not scores:
            why = strange or f"{self.file} has no rows"
            raise UserError(
                f"no row of the table is an architecture of {self.space.name}; {why}; check "
                "search_space and evaluator.architecture"
            )
        if strange:
            raise strange
        return scores

    def _rows(self) -> Iterator[tuple[int, str, list[str]]]:
        """Line number, architecture and scores of each row, as they stand there."""
        if not self.file.is_file():
            raise UserError(f"evaluator.path={self.path}: there is no such file")
        try:
            with _open(self.file) as file:
                reader = csv.DictReader(_lines(file), restval="")
                columns = reader.fieldnames or ()
                wanted = [("architecture", self.architecture)]
                for key, column in wanted + [("score", column) for column in self.columns]:
                    if column not in columns:
                        raise UserError(
                            f"evaluator.{key}={column}: {self.file} has no such column; it has "
                            f"{', '.join(columns)[:500] or 'none'}"
                        )
                for row in reader:
                    values = [row[column] for column in self.columns]
                    yield reader.line_num, row[self.architecture], values
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"evaluator.path={self.path} cannot be read: {error}") from error

    def _accuracy(self, text: str, column: str, place: str) -> float:
        try:
            value = float(text) * self.scale
        except ValueError:
            raise UserError(f"{place}: {column} = {text[:80]!r} is no number") from None
        if not 0 <= value <= 1:  # neither is NaN
            raise UserError(
                f"{place}: {column} = {text[:80]} times evaluator.scale={self.scale:g} is no "
                "accuracy from 0 to 1"
            )
        return value

    def _missing(self, architecture: Architecture) -> str:
        write, canonical = self.space.write, self.space.canonical
        form = canonical(architecture)
        twin = next((other for other in self.by_seed if canonical(other) == form), None)
        return f"{self.file} has no row for architecture {write(architecture)}" + (
            f"; its row for {write(twin)}, which stands for the same network, is not taken instead"
            if twin
            else ""
        )


def _lines(file: IO[str]) -> Iterator[str]:
    """Raises csv.Error over a line that no table has: a small packed file can hold gigabytes."""
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise csv.Error(f"a line has over {LONGEST_LINE:,} characters")
        yield line


def _open(path: Path) -> IO[str]:
    """A text file, packed by gzip or not."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")
