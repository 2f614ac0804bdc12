"""The number of CPU threads of a run: given, or the cores that nobody else uses."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal

import torch

LOOK_SECONDS = 0.3
"""Time in which the use of the cores is watched; the system counts it in hundredths of a second."""

_COUNTS = Path("/proc/stat")
_IDLE = slice(3, 5)
"""Places in the first line of that file: idle, and waiting for a disk."""


def set_threads(wanted: int | Literal["auto"] | None) -> None:
    """Have torch compute with so many threads; None: as many as it chooses itself.

    auto: as many as there are cores that others leave idle just now, at least one. Threads of
    OpenMP wait for each other by spinning, so one that has no core of its own stops all of them.
    """
    if wanted is not None:
        torch.set_num_threads(free_cores() if wanted == "auto" else wanted)


def free_cores() -> int:
    """Return how many of the cores that this process may use are idle, at least one."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = os.cpu_count() or 1
    return max(1, min(usable or 1, cores - round(busy_cores())))


def busy_cores() -> float:
    """Return how many cores all processes together use while this one sleeps for a moment.

    Where the system does not count that, the mean of the last minute, or else 0.
    """
    try:
        before = _ticks()
        time.sleep(LOOK_SECONDS)
        after = _ticks()
        idle, all_ticks = (now - then for now, then in zip(after, before, strict=True))
        return (1 - idle / all_ticks) * (os.cpu_count() or 1)
    except (OSError, ValueError, ZeroDivisionError):
        return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _ticks() -> tuple[int, int]:
    """Return the ticks of all cores since the start of the system: idle ones, and all."""
    words = _COUNTS.read_text().partition("\n")[0].split()
    counts = [int(word) for word in words[1:9]]  # what follows is counted in the first two already
    return sum(counts[_IDLE]), sum(counts)
