"""Files of tensors: read without unpickling anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from nasrun.errors import UserError
from nasrun.run.files import write_atomic


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
