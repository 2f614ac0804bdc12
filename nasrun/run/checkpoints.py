"""Checkpoints on the disk: whole or recognised as damaged, and never only one of them.

A checkpoint is ``checkpoints/000012.json`` with the JSON part of every kept state, the lengths of
the logs, and the names, sizes and digests of the tensor files beside it. A part that has not
changed since an earlier checkpoint is not written again: the new one names the old file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from torch import Tensor

from nasrun.errors import UserError
from nasrun.run.files import LARGEST_JSON, parse_json, read_bytes, write_atomic
from nasrun.run.state import State, Stateful, decode_tensors, encode_tensors, pack, unpack

FORMAT = 1
SPARE_BYTES = 2**29
"""What a part's tensors may take beyond four times its present state (a predictor to come)."""

MOST_KEPT = 4
"""Checkpoints on the disk: three, and a fourth while it replaces one of them."""

MOST_PARTS = 32
MOST_BYTES = 2**34
"""Of all tensor files of a checkpoint: what is larger is none of ours, and not even read."""

_MANIFEST = re.compile(r"(\d{6,12})\.json", re.ASCII)
_TENSORS = re.compile(r"\d{6,12}-[a-z_]+\.safetensors", re.ASCII)


class DamageError(Exception):
    """A checkpoint that is not what was written."""


@dataclass(frozen=True)
class Tensors:
    """A file of tensors: its name within the folder, its length in bytes, its BLAKE2b digest."""

    name: str
    size: int
    digest: str

    @staticmethod
    def from_json(value: Any) -> Tensors:
        """Raises DamageError where ``value`` cannot be what ``asdict`` has given."""
        found = Tensors(**value)
        if not isinstance(found.name, str) or not _TENSORS.fullmatch(found.name):
            raise DamageError(f"it names a file {str(found.name)[:80]!r}")
        if type(found.size) is not int or found.size < 0 or not isinstance(found.digest, str):
            raise DamageError(f"the size or the digest of {found.name} cannot be")
        return found


@dataclass(frozen=True)
class StoredState:
    """One part's state. label: which training, of several that take the same place in turn."""

    label: str
    tree: Any
    tensors: Tensors | None

    def to_json(self) -> dict[str, Any]:
        tensors = asdict(self.tensors) if self.tensors else None
        return {"label": self.label, "tree": self.tree, "tensors": tensors}


@dataclass(frozen=True)
class Checkpoint:
    """seconds: computing time so far; logs: bytes of each log file; parts: by name."""

    number: int
    seconds: float
    logs: dict[str, int]
    parts: dict[str, StoredState]

    def files(self) -> set[str]:
        return {stored.tensors.name for stored in self.parts.values() if stored.tensors}


@dataclass
class TrackedState:
    """A part under care. written: what stands on the disk of the state that had ``mark``."""

    part: Stateful
    label: str = ""
    mark: Any = None
    written: StoredState | None = None


class Checkpoints:
    """The folder; the newest checkpoints are kept so that no single file is needed by all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept: list[Checkpoint] = []  # on the disk, oldest first
        self.number = 0

    def read(self, say: Callable[[str], None]) -> list[Checkpoint]:
        """The newest checkpoints that are whole, newest first; tells of each damaged one.

        Raises UserError where the folder is a link.
        """
        if self.folder.is_symlink():
            raise UserError(f"{self.folder} is refused: it is a link")
        found = sorted(
            (int(match[1]), path)
            for path in (self.folder.iterdir() if self.folder.is_dir() else ())
            if (match := _MANIFEST.fullmatch(path.name))
        )
        self.number = max((number for number, _ in found), default=0)
        whole: list[Checkpoint] = []
        for number, path in reversed(found):
            if len(whole) == MOST_KEPT:
                break
            try:
                whole.append(self._read(number, path))
            except (DamageError, UserError, OSError) as error:
                say(f"checkpoint {path.name} is damaged and passed over: {error}")
        self.kept = whole[::-1]
        return whole

    def _read(self, number: int, path: Path) -> Checkpoint:
        try:
            value = parse_json(read_bytes(path, LARGEST_JSON))
            body, digest = value["checkpoint"], value["digest"]
            if not isinstance(body, str) or digest != _digest(body.encode()):
                raise DamageError("its digest does not fit its content")
            content = parse_json(body)
            if content["format"] != FORMAT or content["number"] != number:
                raise DamageError("it was written by another version, or renamed")
            checkpoint = Checkpoint(
                number,
                float(content["seconds"]),
                {name: int(size) for name, size in content["logs"].items()},
                {
                    str(name): StoredState(
                        str(stored["label"]),
                        stored["tree"],
                        Tensors.from_json(stored["tensors"]) if stored["tensors"] else None,
                    )
                    for name, stored in content["parts"].items()
                },
            )
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise DamageError(f"it is no checkpoint ({type(error).__name__})") from error
        if not 0 <= checkpoint.seconds < math.inf or min(checkpoint.logs.values(), default=0) < 0:
            raise DamageError("it holds numbers that cannot be")
        files = {stored.tensors for stored in checkpoint.parts.values() if stored.tensors}
        if len(checkpoint.parts) > MOST_PARTS or sum(file.size for file in files) > MOST_BYTES:
            raise DamageError("it holds more than any run keeps")
        for file in files:
            self._verify(file)
        return checkpoint

    def _verify(self, tensors: Tensors) -> None:
        """Piece by piece, so that the length of a file costs no memory."""
        path = self.folder / tensors.name
        if path.is_symlink() or not path.is_file():
            raise DamageError(f"{tensors.name} is missing")
        if path.stat().st_size != tensors.size:
            raise DamageError(
                f"{tensors.name} has {path.stat().st_size:,} bytes of {tensors.size:,}"
            )
        state = blake2b(digest_size=16)
        with path.open("rb") as file:
            while piece := file.read(2**20):
                state.update(piece)
        if state.hexdigest() != tensors.digest:
            raise DamageError(f"the digest of {tensors.name} does not fit its content")

    def state(self, stored: StoredState, limit: int) -> State:
        """A part's state; raises ValueError where it is none, or has over ``limit`` bytes."""
        tensors: dict[str, Tensor] = {}
        if stored.tensors is not None:
            data = read_bytes(self.folder / stored.tensors.name, limit)
            if _digest(data) != stored.tensors.digest:
                raise ValueError(f"{stored.tensors.name} has just been changed")
            tensors = decode_tensors(data)
        state = unpack(stored.tree, tensors)
        if not isinstance(state, dict):
            raise ValueError("the state of a part is a mapping")
        return state

    def write(
        self,
        parts: Mapping[str, TrackedState],
        unclaimed: Mapping[str, StoredState],
        logs: dict[str, int],
        seconds: float,
    ) -> Checkpoint:
        """A new checkpoint of ``parts``; ``unclaimed`` are parts of an earlier one, passed on."""
        self.number += 1
        stored = dict(unclaimed)
        for name, kept in parts.items():
            mark = getattr(kept.part, "mark", None)
            if kept.written is None or mark is None or mark != kept.mark:
                kept.written = self._write_part(name, kept)
                kept.mark = mark
            stored[name] = replace(kept.written, label=kept.label)
        checkpoint = Checkpoint(self.number, seconds, logs, stored)
        body = json.dumps(
            {
                "format": FORMAT,
                "number": checkpoint.number,
                "seconds": seconds,
                "logs": logs,
                "parts": {name: value.to_json() for name, value in stored.items()},
            }
        )
        text = json.dumps({"digest": _digest(body.encode()), "checkpoint": body})
        write_atomic(
            self.folder / f"{self.number:06d}.json", lambda file: file.write(text.encode())
        )
        self.kept.append(checkpoint)
        self._prune()
        return checkpoint

    def _write_part(self, name: str, kept: TrackedState) -> StoredState:
        tree, tensors = pack(kept.part.state_dict())
        if not tensors:
            return StoredState(kept.label, tree, None)
        data = encode_tensors(tensors)
        file_name = f"{self.number:06d}-{name}.safetensors"
        write_atomic(self.folder / file_name, lambda file: file.write(data))
        return StoredState(kept.label, tree, Tensors(file_name, len(data), _digest(data)))

    def _prune(self) -> None:
        """Keep the last two, and of the others the newest of those that share fewest files with
        the last: whatever of these files stays in use, that one needs no more of them than any."""
        last, others = self.kept[-1], self.kept[-2::-1]
        apart = min(others, key=lambda one: len(one.files() & last.files()), default=last)
        self.keep_only([one for one in self.kept if one in (apart, *self.kept[-2:])])

    def keep_only(self, keep: list[Checkpoint]) -> None:
        """Remove whatever in the folder belongs to none of ``keep``."""
        self.kept = keep
        names = {f"{one.number:06d}.json" for one in keep}.union(*(one.files() for one in keep))
        for path in self.folder.iterdir():
            ours = _MANIFEST.fullmatch(path.name) or _TENSORS.fullmatch(path.name)
            unfinished = path.name.startswith(".") and path.name.endswith(".writing")
            folder = path.is_dir() and not path.is_symlink()  # nothing that a run has made
            if ((ours and path.name not in names) or unfinished) and not folder:
                path.unlink(missing_ok=True)


def state_bytes(state: Any) -> int:
    """Bytes of all tensors in a state."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    values = state.values() if isinstance(state, dict) else state
    return sum(map(state_bytes, values)) if isinstance(state, dict | list | tuple) else 0


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()
