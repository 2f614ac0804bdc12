"""Write files whole or not at all, and read them as data, within bounds of size.

Of several ranks (``ranks.py``) the first one writes; in the others all that writes does nothing.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from nasrun.errors import UserError
from nasrun.run import ranks

MAX_JSON_BYTES = 64 * 2**20
"""Size of a JSON file that is still read; files of a run are far smaller.

Parsed into Python objects it takes twenty times the memory.
"""

MAX_JSON_LEVELS = 64
"""Upper bound of the nesting of lists and mappings; ours have about ten levels."""

_CAUTION = sum(
    getattr(os, f"O_{name}", 0) for name in ("CLOEXEC", "NOFOLLOW", "NONBLOCK", "BINARY")
)
"""Flags for opening files: binary, never a link, not waiting for a pipe; each where it exists."""

_NESTED = (dict, list)
"""Types of parsed JSON values that hold others."""

_TOO_DEEP = f"it has more than {MAX_JSON_LEVELS} levels"


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that nobody sees it half-written; a failure leaves the old one.

    On return the file and its name are on the disk, so a power cut does not undo them.
    """
    if not ranks.current.writes:
        return
    beside = path.with_name(f".{path.name}.writing")
    try:
        with open_for_writing(beside) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file of known content, whole or not at all."""
    write_atomic(path, lambda file: file.write(data))


def append(path: Path, data: bytes) -> None:
    """Add ``data`` at the end of a file in a single write, and wait until it is on the disk.

    Several processes may append side by side. The file is made where it is absent.
    Raises UserError if ``path`` is a hard or soft link, or no regular file.
    """
    if not ranks.current.writes:
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _CAUTION
    handle = _open(path, flags)
    try:
        _refuse_hard_link(handle, path)
        os.write(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Make a folder inside a run directory; raises UserError if a link has its name."""
    if path.is_symlink():
        raise UserError(f"{path} is refused: it is a link, and a run directory has none of its own")
    if ranks.current.writes:
        path.mkdir(parents=True, exist_ok=True)


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a new folder, whole or not at all. files: their contents, by path within the folder.

    Raises UserError if there is something of its name, OSError where it cannot be written.
    """
    if os.path.lexists(folder):
        raise UserError(f"{folder} is there already, and nothing is overwritten")
    if not ranks.current.writes:
        return
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.writing")
    beside.mkdir()
    try:
        for name, data in files.items():
            make_folder((beside / name).parent)
            write_bytes(beside / name, data)
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _sync_directory(directory: Path) -> None:
    if os.name == "nt":
        return  # Windows opens no directories
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network file systems cannot; the rename itself is still atomic
    finally:
        os.close(handle)


def open_for_writing(path: Path, *, keep: int | None = 0) -> BinaryIO:
    """Open ``path`` for writing from byte ``keep`` on; later bytes are cut off.

    keep: None leaves the whole content.

    Raises UserError if ``path`` is a hard or soft link, or no regular file: a run directory may
    come from a stranger, and nothing outside it may be written.
    """
    if not ranks.current.writes:
        return Path(os.devnull).open("r+b")
    flags = os.O_RDWR | os.O_CREAT | _CAUTION
    file = os.fdopen(_open(path, flags), "r+b")
    try:
        _refuse_hard_link(file.fileno(), path)
        if keep is not None:
            file.truncate(keep)
            file.seek(keep)
    except BaseException:
        file.close()
        raise
    return file


def _refuse_hard_link(handle: int, path: Path) -> None:
    if os.fstat(handle).st_nlink > 1:
        raise UserError(
            f"{path} is refused: it is a hard link, so what has its other name would be "
            "written too; copy the directory and take the copy"
        )


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a regular file of at most ``limit`` bytes; links are not followed.

    Raises UserError if it is a link, no file, or larger; OSError where it cannot be read.
    """
    flags = os.O_RDONLY | _CAUTION
    with os.fdopen(_open(path, flags), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise UserError(
                f"{path} is refused: {size:,} bytes are more than the {limit:,} allowed"
            )
        return file.read(size or limit)  # room for ``limit`` bytes takes longer than the file


def read_beginning(path: Path, limit: int) -> tuple[bytes, bool]:
    """Read the first ``limit`` bytes of a regular file, and tell whether there are more.

    Links are not followed. Raises UserError and OSError as ``read_bytes`` does.
    """
    flags = os.O_RDONLY | _CAUTION
    with os.fdopen(_open(path, flags), "rb") as file:
        return file.read(limit), bool(file.read(1))


def open_to_look(path: Path) -> int:
    """Open a regular file without changing it; returns its handle, which the caller closes.

    For writing where that is allowed, since some file systems lock no other files.
    Raises UserError if it is a link or no file.
    """
    try:
        return _open(path, os.O_RDWR | _CAUTION)
    except PermissionError:
        return _open(path, os.O_RDONLY | _CAUTION)


def read_named(name: str | Path, limit: int, trouble: str) -> bytes:
    """Read a file that the user has named: a regular one of at most ``limit`` bytes.

    A leading ``~`` is the home directory, and links are followed. Pipes and devices are refused
    before they are opened, since reading them may never end.

    trouble: what an error begins with, e.g. ``cannot read the latencies in FILE``.
    Raises UserError where the file cannot be read.
    """
    path = at_home(name)
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise UserError(f"{trouble}: there is no such file, but a folder")
        if not stat.S_ISREG(kind):
            raise UserError(f"{trouble}: it is no regular file")
        return read_bytes(path.resolve(), limit)
    except FileNotFoundError as error:
        raise UserError(f"{trouble}: there is no such file") from error
    except OSError as error:
        raise UserError(f"{trouble}: {error.strerror}") from error
    except ValueError as error:  # a name that no file can have
        raise UserError(f"{trouble}: {error}") from error


def at_home(name: str | Path) -> Path:
    """Return the path, with a leading ``~`` or ``~user`` replaced where that user exists."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def decoded(data: bytes) -> str:
    """Return the text of a file in UTF-8, UTF-16 or, failing these, Latin-1 as Windows has it.

    A byte order mark is left out. Raises ValueError if it is no text.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16")
    elif data[1:2] == b"\0" != data[:1]:
        text = data.decode("utf-16-le")
    elif data[:1] == b"\0" != data[1:2]:
        text = data.decode("utf-16-be")
    else:
        text = _decoded_bytes(data)
    if "\0" in text:
        raise ValueError("it is no text")
    return text


def _decoded_bytes(data: bytes) -> str:
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def _open(path: Path, flags: int) -> int:
    try:
        if not flags & getattr(os, "O_NOFOLLOW", 0):
            _refuse_link(path)
        handle = os.open(path, flags, 0o666)
    except OSError:
        _refuse_link(path)  # which may be why
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UserError(f"{path} is refused: it is no regular file")
    return handle


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise UserError(f"{path} is refused: it is a link, and a run directory has none of its own")


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    # Halves of surrogate pairs, which cannot be encoded, become escapes of JSON.
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_csv(
    path: Path,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    line_end: str = "\n",
) -> None:
    """Write a table with a line of column names, whole or not at all."""
    text = csv_text(columns, rows, line_end=line_end)
    write_bytes(path, text.encode(errors="backslashreplace"))


def csv_text(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, line_end: str = "\n"
) -> str:
    """Return a table with a line of column names as the text of a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=line_end)
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def parse_json(data: str | bytes) -> Any:
    """Parse JSON; raises ValueError, and nothing else, where it is none or nested too deeply."""
    try:
        value = json.loads(data)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    if _brackets(data) <= MAX_JSON_LEVELS:
        return value  # most files: the walk takes half as long as to parse
    level = [value] if type(value) in _NESTED else []
    for _ in range(MAX_JSON_LEVELS):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) in _NESTED
        ]
        if not level:
            return value
    raise ValueError(_TOO_DEEP)


def _brackets(data: str | bytes) -> int:
    """Count the brackets that open: JSON has no more levels."""
    if isinstance(data, str):
        return data.count("{") + data.count("[")
    return data.count(b"{") + data.count(b"[")


def read_json(path: Path, hint: str = "") -> Any:
    """Read a JSON file; raises UserError, with the hint, where it is absent or not JSON."""
    advice = f"; {hint}" if hint else ""
    try:
        return parse_json(read_bytes(path, MAX_JSON_BYTES))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}{advice}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}{advice}") from error


def read_object(path: Path, hint: str = "") -> dict[str, Any]:
    """Read the JSON object in a file; raises UserError if there is none."""
    value = read_json(path, hint)
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object")
    return value


def read_json_or_text(path: Path, hint: str = "") -> Any:
    """Read a JSON value, or the text of a file that is not ``.json`` and holds no object.

    Raises UserError, naming the file and giving the hint, where it cannot be read.
    """
    if path.suffix == ".json":
        return read_json(path, hint)
    try:
        text = decoded(read_bytes(path, MAX_JSON_BYTES)).strip()
    except OSError as error:
        advice = f"; {hint}" if hint else ""
        raise UserError(f"cannot read {path}: {error.strerror}{advice}") from error
    except ValueError as error:
        raise UserError(f"{path} is neither JSON nor text: {error}") from error
    return read_json(path, hint) if text.startswith("{") else text


def printable(text: str) -> str:
    """Replace characters that could control a terminal by escapes."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


@contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """Make a folder of its own for temporary files, and remove it with all that is in it."""
    with tempfile.TemporaryDirectory(prefix=f"nasrun-{name}-") as folder:
        yield Path(folder)


def copy_files(source: Path, copy: Path, limit: int) -> None:
    """Copy the files of a folder into a new one, unless they have more than ``limit`` bytes."""
    files = [path for path in source.iterdir() if path.is_file() and not path.is_symlink()]
    if sum(path.stat().st_size for path in files) <= limit:
        copy.mkdir(parents=True)
        for path in files:
            shutil.copy(path, copy)


def free_bytes(path: Path) -> int:
    """Return the bytes that are free on the disk of a path, which need not exist."""
    there = next(each for each in (path, *path.parents) if each.exists())
    return shutil.disk_usage(there).free
