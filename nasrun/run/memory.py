"""Memory: the bytes that are free, and those that a network would take."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from nasrun.errors import UserError

MACHINE = Path("/proc/meminfo")
OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
"""Files of Linux: the machine's memory, this process's cgroups, and the cgroups' limits.

Containers and batch jobs have such limits.
"""


def check_fits(needed: int, what: str, lower: str) -> None:
    """Raise UserError if ``needed`` bytes are more than are free.

    what: the thing that needs them, e.g. ``the supernet``. lower: settings that make it smaller.
    """
    free = available_bytes()
    if needed > free:
        raise UserError(
            f"{what} needs about {in_words(needed)} of memory, this machine has "
            f"{in_words(free)} free: lower {lower}"
        )


def available_bytes() -> int:
    """Return the bytes that this process can still get from the machine, or from its cgroups."""
    return max(min([_of_the_machine(), *_of_cgroups()]), 0)


def free_memory(device: torch.device) -> int:
    """Return the bytes that tensors on the device can still take."""
    if device.type != "cuda":
        return available_bytes()
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + unused


def network_bytes(build: Callable[[], nn.Module]) -> int:
    """Count the bytes of the parameters and buffers of the network that ``build`` makes.

    The network takes no memory: its tensors have shapes without values. Samples no random number.
    """
    with torch.device("meta"), _Uninitialised():
        network = build()
    tensors: Iterable[torch.Tensor] = chain(network.parameters(), network.buffers())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def in_words(count: int) -> str:
    """Write a number of bytes in words, e.g. ``20.1 GiB``."""
    size, units = float(count), ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:,.0f} {units[0]}" if units[0] == "bytes" else f"{size:,.1f} {units[0]}"


class _Uninitialised(TorchFunctionMode):
    """A mode in which ``torch.nn.init`` does nothing; it would take most of the time."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _of_the_machine() -> int:
    for line in _lines(MACHINE):
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    if not hasattr(os, "sysconf"):
        return sys.maxsize  # Windows does not tell; torch says by itself where memory is short
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _of_cgroups() -> Iterator[int]:
    """Yield the bytes left in each of this process's cgroups and of their parents."""
    for line in _lines(OWN_GROUPS):
        _, controllers, place = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        # Version 2 has one tree, without the name of a controller; version 1 a tree for memory.
        root = GROUPS / "memory" if controllers else GROUPS
        names = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            if controllers
            else ("memory.max", "memory.current", "inactive_file")
        )
        inner = root / place.lstrip("/")
        for folder in (inner, *inner.parents):
            if folder.is_relative_to(root):
                yield from _left(folder, *names)


def _left(folder: Path, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    """Yield the limit minus the usage, if there is a limit; cached files are not counted."""
    most, used = _lines(folder / limit), _lines(folder / usage)
    if most and used and most[0].isdecimal() and used[0].isdecimal():
        found = dict(line.split(maxsplit=1) for line in _lines(folder / "memory.stat"))
        yield int(most[0]) - int(used[0]) + int(found.get(reclaimable, 0))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []


OWN_STATUS = Path("/proc/self/status")
"""File of Linux that tells the peak of this process's memory."""


class PeakMemory:
    """The peak of the memory that this process takes, or on a GPU since the last look.

    Without a GPU it is the peak since the process began, 0 where the system does not tell.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._more = 0
        self._begin()

    def expect(self, more: int) -> None:
        """Count bytes that will be needed on top, e.g. of buffers that are made later."""
        self._more = max(self._more, more)

    def take(self) -> int:
        """Return the peak in bytes, with what is expected on top."""
        if self.device.type == "cuda":
            found = torch.cuda.max_memory_allocated(self.device)
        else:
            told = dict(line.partition(":")[::2] for line in _lines(OWN_STATUS))
            words = told.get("VmHWM", "").split()
            found = 1024 * int(words[0]) if words else _peak_since_start()
        found += self._more
        self._more = 0
        self._begin()
        return found

    def _begin(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)


def _peak_since_start() -> int:
    try:
        import resource  # Windows has none
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
