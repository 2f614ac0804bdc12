"""The processes that work on one run together: ranks, as torchrun starts them.

Every rank runs the whole program. Named random streams give all of them the same networks, gates
and batches; each computes its part of every step, and the sums of all parts are the same on all
ranks, to the bit. So the ranks stay equal without sending weights to each other. The first rank
alone writes files and speaks to the user.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from nasrun.errors import Interrupted, UserError, shortened
from nasrun.run import signals

if TYPE_CHECKING:
    from torch import Tensor

PATIENCE = timedelta(minutes=30)
"""Longest wait for another rank, which may write files or learn in between.

A rank that dies is noticed at once, since its connections close.
"""

IMAGES_PER_RANK = 2
"""Images that each rank needs, since batch norm knows no statistics of one."""

GRACE_SECONDS = 1.0
"""Time in which the first rank reports an error that all ranks have met."""

_NEEDED = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables that torchrun sets beside WORLD_SIZE."""

_PLACE_IN_CODE = re.compile(r"\[\S+:\d+\] ")
"""Beginning of torch's messages, which means nothing to users."""

Value = TypeVar("Value")


class Store(Protocol):
    """The names and texts that all ranks can read, which the starter of the ranks holds."""

    def check(self, names: list[str]) -> bool:
        """Tell whether all of the names have texts."""

    def set(self, name: str, text: str) -> None:
        """Give a name its text."""


class LostRankError(UserError):
    """Another rank has ended or hangs, so the others cannot go on."""


@dataclass(frozen=True)
class Place:
    """The place of this process among those that torchrun has started."""

    rank: int
    size: int


def place() -> Place:
    """Read the place of this process from the environment; without torchrun it is alone.

    Raises UserError if the environment contradicts itself, or names several machines.
    """
    size = _number("WORLD_SIZE", 1)
    if size < 2:
        return Place(0, 1)
    if missing := [name for name in _NEEDED if name not in os.environ]:
        raise UserError(
            f"WORLD_SIZE={size} is set, but {missing[0]} is not: start with torchrun "
            f"--nproc-per-node={size} -m nasrun ..., or unset WORLD_SIZE"
        )
    if (here := _number("LOCAL_WORLD_SIZE", size)) != size:
        raise UserError(
            f"{here} of {size} ranks are on this machine: nasrun's ranks share one machine; "
            "start torchrun with --nnodes=1"
        )
    return Place(_number("RANK", 0), size)


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise UserError(f"the environment has {name}={shortened(value)}, which is no number")
    return int(value)


class Ranks:
    """The ranks of a run, as one of them sees them; these are the single one of most runs.

    rank: the number of this one. size: how many there are.
    """

    rank = 0
    size = 1

    def rows(self, count: int) -> range:
        """Return the places of this rank's images in a batch of ``count``.

        A batch of fewer than two images for each rank is computed by every rank as a whole.
        """
        if count < IMAGES_PER_RANK * self.size:
            return range(count)
        first, last = (count * (self.rank + place) // self.size for place in (0, 1))
        return range(first, last)

    @property
    def writes(self) -> bool:
        """Whether this rank writes files."""
        return self.rank == 0

    def agree(self, value: Value) -> Value:
        """Return the first rank's value, a JSON value."""
        return value

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all ranks, JSON values, in their order."""
        return [value]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all ranks, equal on all of them to the bit."""

    def copy_first(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by that of the first rank."""

    def wait(self) -> None:
        """Wait until all ranks are here."""

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Let the first rank work inside before all others, who find what it has made."""
        if not self.writes:
            self.wait()
        yield
        if self.writes:
            self.wait()

    def first_has_ended(self, within: float = 0.0) -> bool:
        """Tell whether the first rank has said, or says within some seconds, that it ends."""
        return False

    def leave(self) -> None:
        """Say that this rank ends."""


class JoinedRanks(Ranks):
    """The ranks of a run of several processes.

    Tensors of the CPU go through gloo, those of CUDA devices through NCCL if each rank has a device
    of its own. All ranks must call the same methods in the same order.
    """

    def __init__(self, rank: int, size: int, store: Store) -> None:
        self.rank, self.size = rank, size
        self._store = store

    def agree(self, value: Value) -> Value:
        found: Value = self._from(0, value)
        return found

    def gather(self, value: Value) -> list[Value]:
        return [self._from(rank, value) for rank in range(self.size)]

    def _from(self, source: int, value: Any) -> Any:
        import torch
        from torch import distributed

        own = json.dumps(value).encode() if self.rank == source else b""
        length = torch.tensor([len(own)])
        with self._together():
            distributed.broadcast(length, source)
            sent = torch.empty(int(length), dtype=torch.uint8)
            if own:
                sent.copy_(torch.frombuffer(bytearray(own), dtype=torch.uint8))
            distributed.broadcast(sent, source)
        return json.loads(sent.numpy().tobytes())

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        from torch import distributed

        with self._together():
            for alike in _by_kind(tensors):
                flat = _joined(alike)
                distributed.all_reduce(flat)
                _spread(flat, alike)

    def copy_first(self, tensors: Sequence[Tensor]) -> None:
        from torch import distributed

        with self._together():
            for alike in _by_kind(tensors):
                flat = _joined(alike)
                distributed.broadcast(flat, 0)
                _spread(flat, alike)

    def wait(self) -> None:
        import torch

        self.add_up([torch.zeros(1)])

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Turn the failure of a collective operation into an error about a lost rank."""
        try:
            yield
        except RuntimeError as error:
            if not self.writes and signals.stop.signal is not None and self.first_has_ended():
                raise Interrupted(signals.stop.signal) from error
            reason = shortened(_PLACE_IN_CODE.sub("", " ".join(str(error).split())), 120)
            raise LostRankError(
                f"another of the {self.size} ranks has ended or does not answer ({reason})"
            ) from error

    def first_has_ended(self, within: float = 0.0) -> bool:
        until = time.monotonic() + within
        while True:
            try:
                if self._store.check(["ended"]):
                    return True
            except RuntimeError:  # the store has ended, and with it whoever started the ranks
                return False
            if time.monotonic() >= until:
                return False
            time.sleep(0.02)

    def leave(self) -> None:
        if self.writes:
            with suppress(RuntimeError):
                self._store.set("ended", "1")


current = Ranks()
"""The ranks of this process. Global, since a process has one place among them."""


def join(own: Place) -> None:
    """Meet the other ranks; ``current`` are these ranks from now on."""
    global current
    import torch
    from torch import distributed

    # One machine: without this, gloo asks for the address of the host's name, which may have none.
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    found = distributed.rendezvous("env://", timeout=PATIENCE)  # type: ignore[attr-defined]
    store, rank, size = next(found)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = distributed.PrefixStore(f"nasrun/{attempt}", store)  # type: ignore[attr-defined]
    own_devices = torch.cuda.is_available() and torch.cuda.device_count() >= size
    backend = "cpu:gloo,cuda:nccl" if own_devices else "gloo"
    try:
        distributed.init_process_group(
            backend, store=store, rank=rank, world_size=size, timeout=PATIENCE
        )
    except RuntimeError as error:
        raise LostRankError(f"the {own.size} ranks do not find each other: {error}") from error
    current = JoinedRanks(rank, size, store)


def leave(*, failed: bool) -> None:
    """Say that this process ends. failed: whether others may be waiting for it."""
    global current
    if current.size == 1:
        return
    from torch import distributed

    current.leave()
    if not failed:
        distributed.destroy_process_group()
    current = Ranks()


def voice(error: BaseException) -> str | None:
    """Return what this process says before its error; None: nothing, another rank shows it."""
    rank = os.environ.get("RANK", "0") if os.environ.get("WORLD_SIZE", "1") != "1" else "0"
    if rank == "0":
        return ""
    if current.size == 1:  # all ranks have the same command line, and so the same mistake
        return None
    waits = 0.0 if isinstance(error, LostRankError) else GRACE_SECONDS
    return None if current.first_has_ended(within=waits) else f"rank {rank}: "


@contextmanager
def silent() -> Iterator[None]:
    """Show nothing that is written inside."""
    nowhere = _Nowhere()
    with redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


class _Nowhere(io.StringIO):
    """A stream that forgets what is written to it."""

    def write(self, text: str, /) -> int:
        return len(text)


def _by_kind(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Group tensors whose numbers can be sent together, in an order that all ranks have."""

    def kind(tensor: Tensor) -> tuple[str, str]:
        return tensor.device.type, str(tensor.dtype)

    for _, alike in groupby(sorted(tensors, key=kind), key=kind):
        yield list(alike)


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def _spread(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Copy the numbers of ``flat`` back into the tensors."""
    import torch

    start = 0
    with torch.no_grad():
        for tensor in tensors:
            end = start + tensor.numel()
            tensor.copy_(flat[start:end].view(tensor.shape))
            start = end
