"""Times of forward passes on the device, measured in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from nasrun.run.compute import Compute
from nasrun.search_space.layer import Layer
from nasrun.streams import Streams

MAX_BYTES_IN_TURNS = 2**29
"""Weights of the layers that take turns; further layers take turns among themselves."""


def now() -> float:
    """Return seconds of a clock that only rises."""
    return time.perf_counter()


@torch.inference_mode()
def times_in_turns(
    layers: Sequence[Layer],
    compute: Compute,
    *,
    batch_size: int,
    warm_up: int,
    repeats: int,
    advance: Callable[[int], object] = lambda _: None,
) -> list[list[float]]:
    """Measure forward passes in evaluation mode, ``repeats`` of each layer, in milliseconds.

    The layers take turns, so that a time in which the machine is busy with something else slows
    all of them, not a few. warm_up: turns before, which do not count. advance: is told how many
    layers were measured, after each turn.
    """
    found: list[list[float]] = []
    for together in _prepared(layers, compute, batch_size):
        times: list[list[float]] = [[] for _ in together]
        for turn in range(warm_up + repeats):
            for place, (module, images) in enumerate(together):
                began = now()
                with compute.autocast():
                    module(images)
                compute.wait()
                if turn >= warm_up:
                    times[place].append(1000 * (now() - began))
            advance(len(together))
        found += times
    return found


def _prepared(
    layers: Sequence[Layer], compute: Compute, batch_size: int
) -> Iterator[list[tuple[nn.Module, torch.Tensor]]]:
    """Build the layers, in as few groups as the memory allows, each with images as its input."""
    group: list[tuple[nn.Module, torch.Tensor]] = []
    used = 0
    for layer in layers:
        with Streams(0).default("latency"):
            module = compute.place(layer.build()).eval()
        images = compute.images(torch.zeros(batch_size, *layer.shape, device=compute.device))
        used += images.nbytes + sum(tensor.nbytes for tensor in module.state_dict().values())
        group.append((module, images))
        if used > MAX_BYTES_IN_TURNS:
            yield group
            group, used = [], 0
    if group:
        yield group
