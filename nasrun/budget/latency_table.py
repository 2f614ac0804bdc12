"""Tables of latencies: milliseconds of layers by name, and their calibration, in CSV files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nasrun.budget.calibration import OFFSET, SCALE
from nasrun.errors import UserError
from nasrun.run import tables
from nasrun.run.files import write_csv
from nasrun.search_space.layer import Layer


@dataclass
class LatencyTable:
    """The milliseconds of layers by name.

    files: the files that the table is written to. source: name of the table in error messages.
    time: measures a layer that the table lacks; None: a missing layer is an error.
    The rows SCALE and OFFSET, if there are any, hold its calibration.
    """

    milliseconds: dict[str, float]
    files: list[Path]
    source: str
    time: Callable[[Layer], float] | None = None

    def milliseconds_of(self, layer: Layer) -> float:
        """Return the latency of ``layer`` in ms; measures it if it is missing, and stores it.

        Raises UserError if it is missing and cannot be measured.
        """
        if layer.name not in self.milliseconds:
            if self.time is None:
                raise UserError(f"{self.source} has no latency of operation {layer.name!r}")
            self.milliseconds[layer.name] = self.time(layer)
            self.write()
        return self.milliseconds[layer.name]

    def sum_of(self, layers: Iterable[Layer]) -> float:
        """Return the latency of a network of ``layers``; repeated layers count repeatedly.

        It is the sum of theirs, calibrated if the table is.
        """
        known = self.milliseconds
        return known.get(OFFSET, 0.0) + known.get(SCALE, 1.0) * self.plain_sum_of(layers)

    def plain_sum_of(self, layers: Iterable[Layer]) -> float:
        """Return the sum of the latencies of ``layers`` as they were measured one by one."""
        return math.fsum(map(self.milliseconds_of, layers))

    def write(self) -> None:
        """Write the table into all of its files."""
        for path in self.files:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_table(path, self.milliseconds)


def read_table(path: Path, *, own: bool = False) -> dict[str, float]:
    """Return the milliseconds by name of layer.

    own: the file is nasrun's own, in a run or a store, where a link is refused.
    Raises UserError if the file lacks the columns operation and ms, or a row is invalid.
    """
    wanted = dict.fromkeys(
        ("operation", "ms"), "a table of latencies has the columns operation and ms"
    )
    table = tables.read_table(path, wanted, f"cannot read the latencies in {path}", own=own)
    rows: dict[str, int] = {}
    found: dict[str, float] = {}
    for row, (name, ms) in enumerate(
        zip(table.cells["operation"], table.numbers("ms", "time"), strict=True)
    ):
        if ms.percent or not 0 <= ms.value < math.inf:
            text = table.cells["ms"][row]
            raise UserError(f"{table.place(row)}: ms = {text[:80]!r} is no time")
        if name in rows:
            raise UserError(
                f"{table.place(row)}: {name[:80]!r} has a latency already, in line "
                f"{table.lines[rows[name]]}"
            )
        rows[name] = row
        found[name] = ms.value
    return found


def write_table(path: Path, table: Mapping[str, float]) -> None:
    """Write a table that ``read_table`` reads back exactly; resumed runs depend on that."""
    rows = [(name, repr(ms)) for name, ms in sorted(table.items())]
    write_csv(path, ("operation", "ms"), rows)
