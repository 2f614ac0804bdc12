"""Scores looked up in a table: known accuracies instead of training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from nasrun.dataset.base import Splits
from nasrun.errors import UserError
from nasrun.evaluator.base import Evaluator, GatesOf, Scorer, choices_of
from nasrun.evaluator.rank_noise import RankNoise, Tau
from nasrun.run.compute import Compute
from nasrun.run.monitor import Monitor
from nasrun.run.screen import Screen
from nasrun.run.tables import Number, Table, read_table, unquoted
from nasrun.search_space.base import SearchSpace, Supernet
from nasrun.search_space.written import with_zeros
from nasrun.streams import Streams
from nasrun.values import Architecture, Problem, Trial

PER_CENT = 0.01
"""The accuracy of one per cent."""

MAX_PER_CENT_SCALE = 0.02
"""A scale up to this means per cent: scores that are all at most 1 do not go with it."""


class TableEvaluator(Evaluator):
    """Scores by a column of a table (see ``run.tables``), read whole at the start.

    path: the file. architecture: the column of architectures, as ``SearchSpace.parse`` reads them.
    score: the column of scores, or a column for each training seed, of which the mean is taken.
    scale: factor that turns the scores into accuracies in [0, 1]; ``auto``: 1 for a column without
    a score above 1, else 0.01. A score with a % behind it is per cent at any scale.
    tau: Kendall's tau of the scores with those of the table; below 1 the run's seed adds noise.
    """

    needs_supernet = False

    def __init__(
        self,
        *,
        path: str | None,
        architecture: str,
        score: str | Annotated[list[str], Field(min_length=1)],
        scale: PositiveFloat | Literal["auto"],
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
            raise UserError("evaluator.path is missing: the table, a .csv file, plain or packed")
        by_seed = self._read(self.path, space)
        columns = ", ".join(self.columns)
        if self.tau < 1:
            noise = RankNoise({each: fmean(values) for each, values in by_seed.items()})
            by_seed = {each: [x] for each, x in noise.scores(self.tau, streams).items()}
            columns += f", with noise to a tau of {self.tau:g}"
        return TableScorer(by_seed, space, splits.problem, streams.seed, Path(self.path), columns)

    def _read(self, path: str, space: SearchSpace) -> dict[Architecture, list[float]]:
        """Return the scores of each architecture, in the order of the columns."""
        wanted = {column: f"evaluator.score={column}" for column in self.columns}
        wanted |= {self.architecture: f"evaluator.architecture={self.architecture}"}
        table = read_table(path, wanted, f"evaluator.path={path} cannot be read")
        architectures = self._architectures(table, space)
        by_column = [self._accuracies(table, column) for column in self.columns]
        return {
            architecture: [accuracies[row] for accuracies in by_column]
            for row, architecture in enumerate(architectures)
        }

    def _architectures(self, table: Table, space: SearchSpace) -> list[Architecture]:
        """Return the architecture of each row."""
        texts = [unquoted(text) for text in table.cells[self.architecture]]
        words, padded = with_zeros(space, texts)
        rows: dict[Architecture, int] = {}
        strange: UserError | None = None
        for row, text in enumerate(words):
            try:
                architecture = space.parse(text)
            except UserError as error:
                strange = strange or UserError(f"{table.place(row)}: {text[:80]!r}: {error}")
                continue
            if architecture in rows:
                raise UserError(
                    f"{table.place(row)}: {text} has a score already, in line "
                    f"{table.lines[rows[architecture]]}"
                )
            rows[architecture] = row
        if not rows:
            why = strange or f"{table.source} has no rows"
            raise UserError(
                f"no row of the table is an architecture of {space.name}; {why}; check "
                "search_space and evaluator.architecture"
            )
        if strange:
            raise strange
        if padded:
            Screen().say(
                f"note: {table.source}: {padded} of {len(rows)} architectures had lost zeros in "
                "front, as numbers do in a spreadsheet, and got them back, e.g. "
                f"{space.write(next(iter(rows)))}"
            )
        return list(rows)

    def _accuracies(self, table: Table, column: str) -> list[float]:
        """Return the accuracy of each row by one column, in [0, 1]."""
        numbers = table.numbers(column)
        shares = all(value <= 1 and not percent for value, percent in numbers)
        if shares and self.scale == "auto":
            Screen().say(
                f"note: no {column} of {table.source} is above 1, so they are taken as accuracies "
                "from 0 to 1; if they are per cent, set evaluator.scale=0.01"
            )
        elif shares and self.scale != "auto" and self.scale <= MAX_PER_CENT_SCALE:
            Screen().say(
                f"warning: no {column} of {table.source} is above 1, and evaluator.scale="
                f"{self.scale:g} makes them accuracies below {100 * self.scale:g} %; if they are "
                "from 0 to 1, set evaluator.scale=1",
                "yellow",
            )
        scale = (1.0 if shares else PER_CENT) if self.scale == "auto" else self.scale
        return [
            self._accuracy(number, scale, table, column, row) for row, number in enumerate(numbers)
        ]

    def _accuracy(self, number: Number, scale: float, table: Table, column: str, row: int) -> float:
        value = number.value * (PER_CENT if number.percent else scale)
        if not 0 <= value <= 1:  # also refuses NaN
            text = table.cells[column][row][:80]
            told = "" if number.percent else f" times evaluator.scale={scale:g}"
            raise UserError(
                f"{table.place(row)}: {column} = {text}{told} is no accuracy from 0 to 1"
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
