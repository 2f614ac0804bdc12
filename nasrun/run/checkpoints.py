"""Checkpoints on the disk: always several, so a damaged one can be recognised and skipped.

A checkpoint is ``checkpoints/000012.json`` with the JSON part of every tracked state, the lengths
of the logs, and the names, sizes and digests of the tensor files beside it. A state that has not
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
from nasrun.run.files import MAX_JSON_BYTES, parse_json, read_bytes, write_bytes
from nasrun.run.memory import available_bytes
from nasrun.run.state import State, Stateful, decode_tensors, encode_tensors, pack, unpack

FORMAT = 1
SPARE_BYTES = 2**29
"""Allowance for the tensors of a state beyond four times its present size, in bytes.

For example, a predictor does not exist yet when its state is read.
"""

MAX_CHECKPOINTS = 4
"""Checkpoints on the disk: three, and a fourth while it replaces one of them."""

MAX_STATES = 32
"""Upper bound of the states in a checkpoint; no run has as many."""

MAX_MANIFEST_BYTES = 2**30
"""Upper bound of the JSON part of a checkpoint, where the memory allows it; see below."""

MAX_TENSOR_BYTES = 2**34
"""Upper bound of the size of all tensor files of a checkpoint; larger ones are not read."""

_MANIFEST = re.compile(r"(\d{6,12})\.json", re.ASCII)
_TENSORS = re.compile(r"\d{6,12}-[a-z_]+\.safetensors", re.ASCII)


class DamageError(Exception):
    """A checkpoint on the disk differs from what was written."""


@dataclass(frozen=True)
class Tensors:
    """A file of tensors: its name within the folder, its length in bytes, its BLAKE2b digest."""

    name: str
    size: int
    digest: str

    @staticmethod
    def from_json(value: Any) -> Tensors:
        """Undo ``asdict``; raises DamageError if ``value`` is not of its form."""
        found = Tensors(**value)
        if not isinstance(found.name, str) or not _TENSORS.fullmatch(found.name):
            raise DamageError(f"it names a file {str(found.name)[:80]!r}")
        if type(found.size) is not int or found.size < 0 or not isinstance(found.digest, str):
            raise DamageError(f"the size or the digest of {found.name} cannot be")
        return found


@dataclass(frozen=True)
class StoredState:
    """The state of one object as it stands in a checkpoint.

    label: tells apart objects that have the same name in turn.
    tree: its JSON part. tensors: the file of its tensors, if it has any.
    """

    label: str
    tree: Any
    tensors: Tensors | None

    def to_json(self) -> dict[str, Any]:
        tensors = asdict(self.tensors) if self.tensors else None
        return {"label": self.label, "tree": self.tree, "tensors": tensors}


@dataclass(frozen=True)
class Checkpoint:
    """The content of one checkpoint.

    seconds: computing time so far. logs: bytes of each log file. states: by name of the object.
    """

    number: int
    seconds: float
    logs: dict[str, int]
    states: dict[str, StoredState]

    def files(self) -> set[str]:
        return {stored.tensors.name for stored in self.states.values() if stored.tensors}


@dataclass
class TrackedState:
    """An object whose state is in every checkpoint.

    mark: equal marks mean an unchanged state; None: unknown. written: the state with this ``mark``
    as it stands on the disk.
    """

    stateful: Stateful
    label: str = ""
    mark: Any = None
    written: StoredState | None = None


class Checkpoints:
    """The folder of checkpoints; no single damaged file spoils all that it keeps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept: list[Checkpoint] = []  # on the disk, oldest first
        self.number = 0

    def read(self, say: Callable[[str], None]) -> list[Checkpoint]:
        """Read the newest checkpoints that are whole, newest first.

        say: called with a message for each damaged checkpoint.
        Raises UserError if the folder is a link.
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
            if len(whole) == MAX_CHECKPOINTS:
                break
            try:
                whole.append(self._read(number, path))
            except (DamageError, UserError, OSError) as error:
                say(f"checkpoint {path.name} is damaged and passed over: {error}")
        self.kept = whole[::-1]
        return whole

    def _read(self, number: int, path: Path) -> Checkpoint:
        try:
            value = parse_json(read_bytes(path, _max_manifest_bytes()))
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
        files = {stored.tensors for stored in checkpoint.states.values() if stored.tensors}
        if (
            len(checkpoint.states) > MAX_STATES
            or sum(file.size for file in files) > MAX_TENSOR_BYTES
        ):
            raise DamageError("it holds more than any run keeps")
        for file in files:
            self._verify(file)
        return checkpoint

    def _verify(self, tensors: Tensors) -> None:
        """Compare size and digest; reads in chunks, so that a large file takes little memory."""
        path = self.folder / tensors.name
        if path.is_symlink() or not path.is_file():
            raise DamageError(f"{tensors.name} is missing")
        if path.stat().st_size != tensors.size:
            raise DamageError(
                f"{tensors.name} has {path.stat().st_size:,} bytes of {tensors.size:,}"
            )
        state = blake2b(digest_size=16)
        with path.open("rb") as file:
            while chunk := file.read(2**20):
                state.update(chunk)
        if state.hexdigest() != tensors.digest:
            raise DamageError(f"the digest of {tensors.name} does not fit its content")

    def state(self, stored: StoredState, limit: int) -> State:
        """Read a state; raises ValueError if it is none, or has over ``limit`` bytes."""
        tensors: dict[str, Tensor] = {}
        if stored.tensors is not None:
            data = read_bytes(self.folder / stored.tensors.name, limit)
            if _digest(data) != stored.tensors.digest:
                raise ValueError(f"{stored.tensors.name} has just been changed")
            tensors = decode_tensors(data)
        state = unpack(stored.tree, tensors)
        if not isinstance(state, dict):
            raise ValueError("a state is a mapping")
        return state

    def write(
        self,
        states: Mapping[str, TrackedState],
        unclaimed: Mapping[str, StoredState],
        logs: dict[str, int],
        seconds: float,
    ) -> Checkpoint:
        """Write a checkpoint of ``states``; ``unclaimed``: states copied from an earlier one."""
        self.number += 1
        stored = dict(unclaimed)
        for name, tracked in states.items():
            mark = getattr(tracked.stateful, "mark", None)
            if tracked.written is None or mark is None or mark != tracked.mark:
                tracked.written = self._write_state(name, tracked)
                tracked.mark = mark
            stored[name] = replace(tracked.written, label=tracked.label)
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
        write_bytes(self.folder / f"{self.number:06d}.json", text.encode())
        self.kept.append(checkpoint)
        self._prune()
        return checkpoint

    def _write_state(self, name: str, tracked: TrackedState) -> StoredState:
        tree, tensors = pack(tracked.stateful.state_dict())
        if not tensors:
            return StoredState(tracked.label, tree, None)
        data = encode_tensors(tensors)
        file_name = f"{self.number:06d}-{name}.safetensors"
        write_bytes(self.folder / file_name, data)
        return StoredState(tracked.label, tree, Tensors(file_name, len(data), _digest(data)))

    def _prune(self) -> None:
        """Keep the last two checkpoints and a third that shares the fewest files with the last.

        Of several such checkpoints the newest is kept.
        """
        last, others = self.kept[-1], self.kept[-2::-1]
        apart = min(
            others, key=lambda checkpoint: len(checkpoint.files() & last.files()), default=last
        )
        self.keep_only(
            [checkpoint for checkpoint in self.kept if checkpoint in (apart, *self.kept[-2:])]
        )

    def keep_only(self, keep: list[Checkpoint]) -> None:
        """Remove our files in the folder that belong to none of ``keep``."""
        self.kept = keep
        names = {f"{checkpoint.number:06d}.json" for checkpoint in keep}.union(
            *(checkpoint.files() for checkpoint in keep)
        )
        for path in self.folder.iterdir():
            ours = _MANIFEST.fullmatch(path.name) or _TENSORS.fullmatch(path.name)
            unfinished = path.name.startswith(".") and path.name.endswith(".writing")
            folder = path.is_dir() and not path.is_symlink()  # a run makes no folders here
            if ((ours and path.name not in names) or unfinished) and not folder:
                path.unlink(missing_ok=True)


def _max_manifest_bytes() -> int:
    """Return the size of a manifest that is still read.

    Parsed, it takes twenty times the memory. It holds all trials of a search, a KiB for each: at
    least 60,000 of them, at most a million.
    """
    return max(MAX_JSON_BYTES, min(MAX_MANIFEST_BYTES, available_bytes() // 20))


def state_bytes(state: Any) -> int:
    """Bytes of all tensors in a state."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    values = state.values() if isinstance(state, dict) else state
    return sum(map(state_bytes, values)) if isinstance(state, dict | list | tuple) else 0


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()
