"""Read a table that people made: a text file of columns, in the dialects of their programs.

The reader of every table that a user names: scores, ground truths, latencies. ``docs/tables.md``
tells users what it takes.
"""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nasrun.errors import UserError, nearest, shortened
from nasrun.run.files import decoded, read_bytes, read_named

MAX_TABLE_BYTES = 2**28
"""Size of a table that is still read, packed and unpacked; published ones have some megabytes."""

MAX_LINE_CHARACTERS = 2**20
"""Upper bound of the length of a line; those of published tables have some hundreds."""

SEPARATORS = (",", ";", "\t")
"""Signs that may stand between columns."""

MAX_XZ_MEMORY_BYTES = 2**28
"""Memory that unpacking may take; ``xz -9`` needs a quarter of it."""

NUMBER = re.compile(
    r"[+-]?(?:[0-9]+(?P<mark>[.,]?)[0-9]*|(?P<bare>[.,])[0-9]+)(?:[eE][+-]?[0-9]+)?"
)
"""A number with a decimal point or comma; no sign stands between thousands."""

_GZIP, _XZ = b"\x1f\x8b", b"\xfd7zXZ\0"


class Number(NamedTuple):
    """A number as it stands in a table. percent: whether a % follows it."""

    value: float
    percent: bool


@dataclass(frozen=True)
class Table:
    """The wanted columns of a table.

    source: name of the file, for messages. lines: line of the file in which each row ends, [rows].
    cells: the texts of each wanted column, trimmed, [rows].
    """

    source: str
    lines: list[int]
    cells: Mapping[str, list[str]]

    def place(self, row: int) -> str:
        """Return where a row stands, for messages."""
        return f"{self.source}, line {self.lines[row]}"

    def numbers(self, column: str, kind: str = "number") -> list[Number]:
        """Return the numbers of a column, [rows]; NaN and infinity are among them.

        kind: what they are, for messages.
        Raises UserError over a text that is no number, or if some have a decimal point and others
        a decimal comma, since one of these may stand between thousands.
        """
        numbers: list[Number] = []
        first: dict[str, int] = {}
        for row, text in enumerate(self.cells[column]):
            percent = text.endswith("%")
            plain = unquoted(text.removesuffix("%").strip()).replace("\u2212", "-")
            found = NUMBER.fullmatch(plain)
            if not found and plain.lower().lstrip("+-") not in ("nan", "inf", "infinity"):
                raise UserError(f"{self.place(row)}: {column} = {text[:80]!r} is no {kind}")
            if found and (mark := found["mark"] or found["bare"]):
                first.setdefault(mark, row)
            numbers.append(Number(float(plain.replace(",", ".")), percent))
        if len(first) > 1:
            (one, row), (other, later) = first.items()
            raise UserError(
                f"{self.place(later)}: {column} = {self.cells[column][later][:80]!r} has {other!r} "
                f"where line {self.lines[row]} has {one!r}: write all numbers with a decimal point"
            )
        return numbers


def read_table(
    path: str | Path, wanted: Mapping[str, str], trouble: str, *, own: bool = False
) -> Table:
    """Read columns of a table with a line of column names, plain or packed by gzip or xz.

    wanted: the columns, each with what an error says if it is absent. trouble: what an error begins
    with if the file cannot be read. own: the file is one of nasrun's own, where a link is refused.
    Raises UserError where it cannot be read, a wanted column is absent or stands twice, or a row
    has more cells than there are columns.
    """
    try:
        data = (
            read_bytes(Path(path), MAX_TABLE_BYTES)
            if own
            else read_named(path, MAX_TABLE_BYTES, trouble)
        )
        text = decoded(_unpacked(data, str(path)))
        return _parsed(text, wanted, str(path))
    except OSError as error:
        raise UserError(f"{trouble}: {error.strerror or error}") from error
    except (EOFError, ValueError, zlib.error, lzma.LZMAError, csv.Error) as error:
        raise UserError(f"{trouble}: {error}") from error


def unquoted(text: str) -> str:
    """Return a cell without the marks by which spreadsheets keep a text: ``'12``, ``="12"``."""
    if formula := re.fullmatch(r'="(.*)"', text):
        return formula[1].strip()
    return text[1:].removesuffix("'").strip() if text.startswith("'") else text


def _unpacked(data: bytes, name: str) -> bytes:
    """Unpack a file by its first bytes or its name; raises ValueError if it gets too large."""
    if data.startswith(_GZIP) or name.endswith(".gz"):
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            data = file.read(MAX_TABLE_BYTES + 1)
    elif data.startswith(_XZ) or name.endswith(".xz"):
        unpacker = lzma.LZMADecompressor(memlimit=MAX_XZ_MEMORY_BYTES)
        data = unpacker.decompress(data, MAX_TABLE_BYTES + 1)
        if not unpacker.eof and len(data) <= MAX_TABLE_BYTES:
            raise EOFError("the packed file is cut off")
    if len(data) > MAX_TABLE_BYTES:
        raise ValueError(f"it has more than {MAX_TABLE_BYTES:,} bytes")
    return data


def _parsed(text: str, wanted: Mapping[str, str], source: str) -> Table:
    separators: Sequence[str] = SEPARATORS
    if said := re.match(r'"?sep=([,;\t])"?\r?\n', text):  # spreadsheets tell it to each other
        separators = said[1]
    choices = [(_names(text, separator, bool(said)), separator) for separator in separators]
    # Of equals the first is taken, so a table without any wanted column is split where it splits.
    names, separator = max(
        choices, key=lambda choice: (len(set(wanted) & set(choice[0])), len(choice[0]))
    )
    for column, lacks in wanted.items():
        if column not in names:
            raise UserError(
                f"{lacks}: {source} has no such column{nearest(column, names)}; it has "
                f"{shortened(', '.join(names), 500) or 'none'}"
            )
        if names.count(column) > 1:
            places = [str(place) for place, name in enumerate(names, 1) if name == column]
            raise UserError(
                f"{lacks}: {source} has {len(places)} columns of that name, the columns "
                f"{' and '.join(places)}: rename or delete one"
            )
    indices = {column: names.index(column) for column in wanted}
    lines: list[int] = []
    cells: dict[str, list[str]] = {column: [] for column in wanted}
    for line, row in _rows(text, separator, bool(said), skip=1):
        if any(cell.strip() for cell in row[len(names) :]):
            raise UserError(
                f"{source}, line {line}: {len(row)} cells for {len(names)} columns; a cell that "
                f"holds {separator!r} (a decimal comma?) is written in quotes"
            )
        lines.append(line)
        for column, index in indices.items():
            cells[column].append(_trimmed(row[index]) if index < len(row) else "")
    return Table(source, lines, cells)


def _names(text: str, separator: str, told: bool) -> list[str]:
    """Return the names of the columns, trimmed; empty if there are none."""
    _, row = next(_rows(text, separator, told), (0, []))
    return [_trimmed(name) for name in row]


def _rows(text: str, separator: str, told: bool, skip: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row that is not blank, with the line in which it ends.

    told: whether the first line only tells the separator. skip: rows to leave out.
    """
    file = io.StringIO(text, newline="")
    if told:
        file.readline()
    reader = csv.reader(_lines(file), delimiter=separator, skipinitialspace=True)
    for row in reader:
        if not any(cell.strip() for cell in row):
            continue
        if skip:
            skip -= 1
            continue
        yield reader.line_num + told, row


def _lines(file: io.StringIO) -> Iterator[str]:
    """Yield the lines; raises csv.Error if a line is too long for a table.

    A small packed file may expand to a line of millions of cells.
    """
    while line := file.readline(MAX_LINE_CHARACTERS):
        if len(line) == MAX_LINE_CHARACTERS:
            raise csv.Error(f"a line has over {MAX_LINE_CHARACTERS:,} characters")
        yield line


def _trimmed(cell: str) -> str:
    return cell.strip().strip("\ufeff\u200b").strip()
