"""Check image files before a run begins: can each be read, and does any stand there twice?"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nasrun.dataset.files import UnreadableError, digest_of_readable
from nasrun.dataset.listing import ImageFiles
from nasrun.dataset.order import Indices
from nasrun.errors import UserError
from nasrun.run.files import printable, read_bytes, write_atomic
from nasrun.run.monitor import Monitor

Digests = NDArray[np.uint64]
"""A digest of the bytes of each file, [N]; 0: it cannot be read."""

SHOWN = 10
"""Unreadable files that a message names."""

MIN_REMEMBERED = 200
"""Number of files from which on a check is remembered; fewer take no time."""

_FILES_AT_A_TIME = 16
_HEADER = b"nasrun checks 1\n"
_CHECKSUM_BYTES = 16
_MAX_BYTES = 2**32

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Checked:
    """Holds the results of a check: digests [N], and why a file is unreadable, by its path."""

    digests: Digests
    unreadable: dict[str, str]


def in_threads(
    work: Callable[[ItemT], ResultT], items: Iterable[ItemT], workers: int
) -> Generator[ResultT, None, None]:
    """Yield ``work(item)`` in order; threads suffice, as decoders release Python's lock.

    Once it is closed, what has not begun is not done.
    """
    pool = ThreadPoolExecutor(max(workers, 1))
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)


def check_files(paths: list[str], root: Path, workers: int, monitor: Monitor) -> Checked:
    """Read all files once, except those that an earlier check has found readable.

    A file is known by its path, size and times of change. root: names the memory of the check.
    """
    memory = Memory(memory_folder() / f"{blake2b(os.fsencode(root), digest_size=16).hexdigest()}")
    keys = np.array([_key(path) for path in paths], dtype=np.uint64)
    digests = memory.digests_of(keys) if len(paths) >= MIN_REMEMBERED else np.zeros_like(keys)
    left = np.flatnonzero(digests == 0).tolist()
    unreadable: dict[str, str] = {}
    if not left:
        return Checked(digests, unreadable)
    parts = [left[k : k + _FILES_AT_A_TIME] for k in range(0, len(left), _FILES_AT_A_TIME)]

    def check(part: list[int]) -> list[int | str]:
        return [_digest_or_reason(paths[index]) for index in part]

    try:
        with (
            closing(in_threads(check, parts, workers)) as results,
            monitor.stage("checking images", len(left)) as stage,
        ):
            for part, found in zip(parts, results, strict=True):
                for index, result in zip(part, found, strict=True):
                    if isinstance(result, str):
                        unreadable[paths[index]] = result
                    else:
                        digests[index] = result
                stage.advance(len(part))
    finally:  # also of a check that was interrupted
        if len(paths) >= MIN_REMEMBERED:
            memory.remember(keys, digests)
    return Checked(digests, unreadable)


def _digest_or_reason(path: str) -> int | str:
    try:
        return digest_of_readable(path)
    except UnreadableError as error:
        return error.reason


def _key(path: str) -> int:
    """Return a digest that names a file as it is now, of 64 bits; 0: it is not there."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path for each of a million files is slow
    except OSError:
        return 0
    times = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} "
    digest = blake2b(times.encode() + os.fsencode(path), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


def skip_unreadable(checked: Checked, paths: list[str], most: float) -> str | None:
    """Return a sentence about unreadable files that are passed over; None if there are none.

    most: the share of ``paths`` that may be passed over.
    Raises UserError, naming the first, if there are more.
    """
    bad = checked.unreadable
    if not bad:
        return None
    shown = [f"{printable(path)} ({bad[path]})" for path in list(bad)[:SHOWN]]
    more = f" and {len(bad) - SHOWN:,} more" if len(bad) > SHOWN else ""
    names = "; ".join(shown) + more
    if len(bad) <= most * len(paths):
        return f"{len(bad):,} of {len(paths):,} images are passed over, as unreadable: {names}"
    share = -(-1000 * len(bad) // len(paths)) / 10  # in per cent, rounded up
    advice = f"mend or remove them, or pass over up to a share: dataset.skip_bad={share:g}%"
    if len(bad) == 1:
        ((path, reason),) = bad.items()
        raise UserError(f"cannot read the image {printable(path)}: {reason}; {advice}")
    raise UserError(f"cannot read {len(bad):,} of {len(paths):,} images: {names}; {advice}")


def find_copies(one: Digests, other: Digests) -> list[tuple[int, int]]:
    """Return the places of files of equal content: of each in ``other`` that is also in ``one``."""
    order = np.argsort(one, kind="stable")
    place = np.minimum(np.searchsorted(one, other, sorter=order), len(one) - 1)
    equal = np.flatnonzero(one[order[place]] == other) if len(one) else np.array([], dtype=np.int64)
    return [(int(order[place[index]]), int(index)) for index in equal]


def copies_within(digests: Digests) -> list[tuple[int, int]]:
    """Return (place of the first, place) of each file that has the content of an earlier one."""
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    return [(int(first[k]), i) for i, k in enumerate(inverse.tolist()) if first[k] != i]


def refuse_copies(
    one: tuple[str, ImageFiles, Digests], other: tuple[str, ImageFiles, Digests]
) -> None:
    """Raise UserError if two splits hold a file of equal content; each has a name."""
    pairs = find_copies(one[2], other[2])
    if pairs:
        shown = ", ".join(
            f"{printable(one[1].paths[i])} = {printable(other[1].paths[j])}" for i, j in pairs[:3]
        )
        more = f" and {len(pairs) - 3:,} more" if len(pairs) > 3 else ""
        raise UserError(
            f"{len(pairs):,} images are in {one[0]} and in {other[0]}: {shown}{more}; remove them "
            "from one, as accuracies would be too high, or take them with dataset.duplicates=keep"
        )


def without_copies(digests: Digests, order: Indices, held_out: int) -> Indices:
    """Leave out of ``order`` the images behind the first ``held_out`` that are copies of those."""
    front, rest = np.split(order, [held_out])
    return np.concatenate([front, rest[~np.isin(digests[rest], digests[front])]])


def memory_folder() -> Path:
    """Return the folder of the user in which checks are remembered."""
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:  # the user has no home
        base = Path(os.devnull)  # no folder, so nothing is remembered
    return base / "nasrun" / "images"


class Memory:
    """A file of (key, digest) pairs of readable image files, with a checksum.

    A damaged one counts as empty, and where none can be written, nothing is remembered.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def digests_of(self, keys: Digests) -> Digests:
        """Return the digest remembered for each key [N], or 0."""
        table = self._read()
        if not len(table):
            return np.zeros_like(keys)
        place = np.minimum(np.searchsorted(table[:, 0], keys), len(table) - 1)
        return np.where((table[place, 0] == keys) & (keys != 0), table[place, 1], 0).astype(
            np.uint64
        )

    def remember(self, keys: Digests, digests: Digests) -> None:
        """Write the pairs in place of those before, except digests of 0."""
        known = (keys != 0) & (digests != 0)
        table = np.stack([keys[known], digests[known]], axis=1)
        body = table[np.argsort(table[:, 0])].astype("<u8").tobytes()
        checksum = blake2b(body, digest_size=_CHECKSUM_BYTES).digest()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, lambda file: file.write(_HEADER + checksum + body))
        except (OSError, UserError):
            pass  # a home that cannot be written to: the next run checks again

    def _read(self) -> NDArray[np.uint64]:
        empty = np.zeros((0, 2), dtype=np.uint64)
        try:
            data = read_bytes(self.path, _MAX_BYTES)
        except (OSError, UserError):
            return empty
        start = len(_HEADER) + _CHECKSUM_BYTES
        body, checksum = data[start:], data[len(_HEADER) : start]
        whole = data.startswith(_HEADER) and len(body) % 16 == 0
        if not whole or blake2b(body, digest_size=_CHECKSUM_BYTES).digest() != checksum:
            return empty
        return np.frombuffer(body, dtype="<u8").astype(np.uint64).reshape(-1, 2)
