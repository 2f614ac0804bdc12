"""Files that are whole or absent: written beside, flushed to the disk, renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from nasrun.errors import UserError


def write_atomic(path: Path, write: Callable[[BinaryIO], None]) -> None:
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
    write_atomic(path, lambda file: _write_bytes(file, text.encode()))


def _write_bytes(file: BinaryIO, data: bytes) -> None:
    file.write(data)


def read_json(path: Path) -> Any:
    """Raises UserError, naming the file, where it is absent or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None


def save_tensors(path: Path, state: dict[str, Any]) -> None:
    """state: tensors and plain values only; ``load_tensors`` reads nothing else."""
    write_atomic(path, lambda file: torch.save(state, file))


def load_tensors(path: Path, device: torch.device) -> dict[str, Any]:
    """Never unpickles: raises UserError for a file with anything but tensors and plain values."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except Exception as error:  # torch raises many kinds for a broken or foreign file
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a checkpoint of nasrun: {first}") from None
    if not isinstance(state, dict):
        raise UserError(f"{path} is not a checkpoint of nasrun")
    return state
