"""Scores looked up in a table: known accuracies instead of training."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import IO, Annotated

from pydantic import Field, PositiveFloat

from nasrun.dataset.base import Splits
from nasrun.errors import UserError
from nasrun.evaluator.base import Evaluator, GatesOf, Scorer, choices_of
from nasrun.evaluator.rank_noise import RankNoise, Tau
from nasrun.run.compute import Compute
from nasrun.run.monitor import Monitor
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.streams import Streams
from nasrun.values import Architecture, Problem, Trial

MAX_LINE_CHARACTERS = 2**20
"""Upper bound of the length of a line; those of published tables have some hundreds."""


class TableEvaluator(Evaluator):
    """Scores by a column of a CSV file (plain, or packed as .gz), read whole at the start.

    path: the file. architecture: the column of architectures, as ``SearchSpace.parse`` reads them.
    score: the column of scores, or a column for each training seed, of which the mean is taken.
    scale: factor that turns the scores into accuracies in [0, 1].
    tau: Kendall's tau of the scores with those of the table; below 1 the run's seed adds noise.
    """

    needs_supernet = False

    def __init__(
        self,
        *,
        path: str | None,
        architecture: str,
        score: str | Annotated[list[str], Field(min_length=1)],
        scale: PositiveFloat,
        tau: Tau,
    ) -> None:
        self.path = path
        self.architecture = architecture
        self.columns = [score] if isinstance(score, str) else score
        self.scale = scale
        self.tau = tau

    def bind(
        self, space: SearchSpace, splits: Splits, compute: Compute, streams: Streams
    ) -> TableScorer:
        """Read the table; raises UserError if any line of it is invalid."""
        if self.path is None:
            raise UserError("evaluator.path is missing: the table, a .csv or .csv.gz file")
        file = Path(self.path)
        by_seed = self._read(file, space)
        columns = ", ".join(self.columns)
        if self.tau < 1:
            noise = RankNoise({each: fmean(values) for each, values in by_seed.items()})
            by_seed = {each: [x] for each, x in noise.scores(self.tau, streams).items()}
            columns += f", with noise to a tau of {self.tau:g}"
        return TableScorer(by_seed, space, splits.problem, streams.seed, file, columns)

    def _read(self, path: Path, space: SearchSpace) -> dict[Architecture, list[float]]:
        """Return the scores of each architecture, in the order of the columns."""
        scores: dict[Architecture, list[float]] = {}
        lines: dict[Architecture, int] = {}
        strange: UserError | None = None
        for line, text, values in self._rows(path):
            place = f"{path}, line {line}"
            try:
                architecture = space.parse(text)
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
            why = strange or f"{path} has no rows"
            raise UserError(
                f"no row of the table is an architecture of {space.name}; {why}; check "
                "search_space and evaluator.architecture"
            )
        if strange:
            raise strange
        return scores

    def _rows(self, path: Path) -> Iterator[tuple[int, str, list[str]]]:
        """Yield the line number, and the texts of architecture and scores, of each row."""
        if not path.is_file():
            raise UserError(f"evaluator.path={self.path}: there is no such file")
        try:
            with _open(path) as file:
                reader = csv.DictReader(_lines(file), restval="")
                columns = reader.fieldnames or ()
                wanted = [("architecture", self.architecture)]
                for key, column in wanted + [("score", column) for column in self.columns]:
                    if column not in columns:
                        raise UserError(
                            f"evaluator.{key}={column}: {path} has no such column; it has "
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
        if not 0 <= value <= 1:  # also refuses NaN
            raise UserError(
                f"{place}: {column} = {text[:80]} times evaluator.scale={self.scale:g} is no "
                "accuracy from 0 to 1"
            )
        return value


@dataclass(frozen=True)
class TableScorer(Scorer):
    """Looks scores up.

    by_seed: the scores of each architecture, one per column. columns: names of the columns, for
    the trials.
    """

    by_seed: Mapping[Architecture, list[float]]
    space: SearchSpace
    problem: Problem
    seed: int
    file: Path
    columns: str

    @property
    def published_scores(self) -> Mapping[Architecture, list[float]]:
        return self.by_seed

    def score(
        self,
        architectures: Sequence[Architecture],
        supernet: Supernet | None,
        monitor: Monitor,
        gates_of: GatesOf = choices_of,
    ) -> Iterator[Trial]:
        """Raises UserError if the table lacks an architecture."""
        for architecture in architectures:
            if architecture not in self.by_seed:
                raise UserError(self._missing(architecture))
            yield Trial(
                architecture,
                fmean(self.by_seed[architecture]),
                self.space.cost(architecture, self.problem),
                self.seed,
                {"evaluator": "table", "table": self.file.name, "column": self.columns},
            )

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
    """Yield the lines; raises csv.Error if a line is too long for a table.

    A small packed file may expand to gigabytes.
    """
    while line := file.readline(MAX_LINE_CHARACTERS):
        if len(line) == MAX_LINE_CHARACTERS:
            raise csv.Error(f"a line has over {MAX_LINE_CHARACTERS:,} characters")
        yield line


def _open(path: Path) -> IO[str]:
    """Open a text file, packed by gzip or not."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")
