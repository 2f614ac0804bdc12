"""Files that are whole or absent: written beside, flushed to the disk, renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from nasrun.errors import UserError


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Nobody ever sees ``path`` half-written; a failed write leaves what was there before."""
    beside = path.with_name(f".{path.name}.writing")
    try:
        with beside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_atomic(path, lambda file: file.write(text.encode()))


def read_json(path: Path, hint: str = "") -> Any:
    """Raises UserError, naming the file and giving the hint, where it is absent or not JSON."""
    advice = f"; {hint}" if hint else ""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}{advice}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}{advice}") from error
