"""The speed of a whole network by batch size, measured in rounds, with intervals."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nasrun.errors import UserError
from nasrun.metrics.bootstrap import Estimate
from nasrun.metrics.median import median_of
from nasrun.run.compute import Compute
from nasrun.run.monitor import Monitor

MIN_SECONDS = 0.002
"""Shortest time of a measurement; a faster network runs several times in each."""


@dataclass(frozen=True)
class Case:
    """One engine at one batch size. forward: computes the batch, and waits until it is done."""

    engine: str
    batch_size: int
    forward: Callable[[], object]


@dataclass(frozen=True)
class Speed:
    """A measured case.

    milliseconds: median time of a forward pass, with its interval. spread: distance of the
    quartiles of the times over the median. repeats: times that were measured.
    memory: largest memory of weights and intermediate results, in bytes; None: not known.
    """

    engine: str
    batch_size: int
    milliseconds: Estimate
    spread: float
    repeats: int
    memory: int | None

    @property
    def images_per_second(self) -> float:
        """Images a second, at the median time."""
        return 1000 * self.batch_size / self.milliseconds.value

    def steady(self, limit: float) -> bool:
        """Tell whether the times agree so well that nothing else can have been computing."""
        return self.spread <= limit


def measure(
    cases: Sequence[Case],
    monitor: Monitor,
    *,
    repeats: int,
    warm_up: int,
    confidence: float,
    rng: np.random.Generator,
    memory: Mapping[tuple[str, int], int] | None = None,
) -> list[Speed]:
    """Time all cases, in rounds of random order: slow spells of the machine hit all alike.

    repeats: rounds. warm_up: forward passes of each case before. memory: by engine and batch size.
    """
    counts: list[int] = []
    times: list[list[float]] = [[] for _ in cases]
    with monitor.stage("benchmark", (repeats + 1) * len(cases)) as stage:
        for case in cases:
            monitor.poll()
            for _ in range(warm_up):
                case.forward()
            counts.append(max(1, math.ceil(MIN_SECONDS / max(_seconds(case, 1), 1e-9))))
            stage.advance(1)
        for _ in range(repeats):
            for index in rng.permutation(len(cases)).tolist():
                monitor.poll()
                times[index].append(1000 * _seconds(cases[index], counts[index]))
                stage.advance(1)
    return [
        Speed(
            case.engine,
            case.batch_size,
            median_of(found, confidence),
            _spread(found),
            repeats,
            (memory or {}).get((case.engine, case.batch_size)),
        )
        for case, found in zip(cases, times, strict=True)
    ]


def torch_cases(
    network: nn.Module, shape: tuple[int, int, int], sizes: Sequence[int], compute: Compute
) -> list[Case]:
    """Return a case for each batch size, on the device and in the number format of ``compute``."""
    placed = compute.place(network)

    def case(size: int) -> Case:
        images = compute.images(_images(size, shape).to(compute.device))

        @torch.inference_mode()
        def forward() -> None:
            with compute.autocast():
                placed(images)
            compute.wait()

        return Case("torch", size, forward)

    return [case(size) for size in sizes]


def program_cases(
    engine: str, run: Callable[[Tensor], Tensor], shape: tuple[int, int, int], sizes: Sequence[int]
) -> list[Case]:
    """Return a case for each batch size of a program that takes images on the CPU."""

    def case(size: int) -> Case:
        images = _images(size, shape)
        return Case(engine, size, lambda: run(images))

    return [case(size) for size in sizes]


def peak_memory(
    network: nn.Module, shape: tuple[int, int, int], size: int, compute: Compute
) -> int:
    """Return the largest memory of a forward pass, in bytes.

    On a GPU as torch's allocator counts it; elsewhere that of the weights and of the intermediate
    results that are alive at once, without work space inside of an operation.
    Raises UserError if the images do not fit in memory.
    """
    (case,) = torch_cases(network, shape, [size], compute)
    counter = _AliveTensors()
    try:
        if compute.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(compute.device)
            case.forward()
            return int(torch.cuda.max_memory_allocated(compute.device))
        with counter:
            case.forward()
    except (RuntimeError, MemoryError) as error:
        words = " ".join(str(error).split())[:120]
        raise UserError(f"a batch of {size} images fails ({words}): leave it out") from error
    state = (*network.parameters(), *network.buffers())
    return counter.most + sum(tensor.numel() * tensor.element_size() for tensor in state)


class _AliveTensors(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, as long as they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive = self.most = 0
        self.known: dict[int, int] = {}  # tensors that share a storage, by its address

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor):
                self._add(tensor)
        self.most = max(self.most, self.alive)
        return out

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if not self.known.get(place):
            self.alive += size
        self.known[place] = self.known.get(place, 0) + 1
        weakref.finalize(tensor, self._remove, place, size)

    def _remove(self, place: int, size: int) -> None:
        self.known[place] -= 1
        if not self.known[place]:
            self.alive -= size


def _images(size: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.randn(size, *shape, generator=torch.Generator().manual_seed(size))


def _seconds(case: Case, count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        case.forward()
    return (time.perf_counter() - began) / count


def _spread(values: Sequence[float]) -> float:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return float((high - low) / middle)
