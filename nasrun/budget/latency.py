"""Latencies of layers, measured on the device at hand or read from a table, and their sums."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import nn

from nasrun.errors import UserError
from nasrun.limits import Count
from nasrun.run import tables
from nasrun.run.compute import Compute
from nasrun.run.files import at_home, write_csv
from nasrun.run.screen import Screen
from nasrun.search_space.base import Measure, SearchSpace
from nasrun.search_space.layer import Layer
from nasrun.streams import Streams
from nasrun.values import Architecture, Problem

SAMPLES_FOR_LAYERS = 8
"""Random architectures whose variants are searched for layers."""

MIN_CHECKED_NETWORKS = 3
"""Fewer whole networks give no meaningful correlation with the sums of latencies."""


@dataclass
class LatencyTable:
    """The milliseconds of layers by name.

    files: the files that the table is written to. source: name of the table in error messages.
    time: measures a layer that the table lacks; None: a missing layer is an error.
    """

    milliseconds: dict[str, float]
    files: list[Path]
    source: str
    time: Callable[[Layer], float] | None = None

    def milliseconds_of(self, layer: Layer) -> float:
        """Return the latency of ``layer`` in ms; measures it if it is missing, and stores it.

        Raises UserError if it is missing and cannot be measured.
        """
        if layer.name not in self.milliseconds:
            if self.time is None:
                raise UserError(f"{self.source} has no latency of operation {layer.name!r}")
            self.milliseconds[layer.name] = self.time(layer)
            self.write()
        return self.milliseconds[layer.name]

    def sum_of(self, layers: Iterable[Layer]) -> float:
        """Return the sum of the latencies of ``layers``; repeated layers count repeatedly."""
        return math.fsum(map(self.milliseconds_of, layers))

    def write(self) -> None:
        """Write the table into all of its files."""
        for path in self.files:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_table(path, self.milliseconds)


class Latency:
    """The settings of latencies.

    The latency of a network is the sum over its layers (``SearchSpace.layers``).

    table: a CSV file with the columns operation and ms, instead of measurements.
    store: folder of measured tables, one for each device and setting; nothing is measured twice.
    device: the device whose latency is measured. batch_size: images in a forward pass.
    repeats: measurements, of which the median is taken; ``warm_up`` more run before them.
    networks: whole networks that are measured as a check of the sums.
    """

    def __init__(
        self,
        *,
        table: str | None,
        store: str,
        device: str,
        batch_size: Count,
        repeats: PositiveInt,
        warm_up: PositiveInt,
        networks: Annotated[int, Field(ge=0, le=1000)],
    ) -> None:
        self.table, self.store, self.device = table, store, device
        self.batch_size, self.repeats, self.warm_up = batch_size, repeats, warm_up
        self.networks = networks

    def bind(
        self,
        space: SearchSpace,
        problem: Problem,
        compute: Compute,
        screen: Screen,
        kept: Path | None = None,
    ) -> Latencies:
        """Return the latencies of ``space``, which are measured or read at their first use.

        screen: shows the progress. kept: the copy of the table in the directory of this run, which
        need not exist yet; a run uses the same table from beginning to end.
        """
        return Latencies(self, space, problem, compute, screen, kept)

    @torch.inference_mode()
    def time(self, layer: Layer, compute: Compute) -> float:
        """Return the milliseconds of a forward pass in evaluation mode, the median of repeats."""
        with Streams(0).default("latency"):
            module = compute.place(layer.build()).eval()
        images = compute.images(torch.zeros(self.batch_size, *layer.shape, device=compute.device))

        def once() -> float:
            began = time.perf_counter()
            with compute.autocast():
                module(images)
            if compute.device.type == "cuda":
                torch.cuda.synchronize(compute.device)
            elif compute.device.type == "mps":
                torch.mps.synchronize()
            return 1000 * (time.perf_counter() - began)

        for _ in range(self.warm_up):
            once()
        return median(once() for _ in range(self.repeats))


class Latencies:
    """The latencies of one search space on one device."""

    def __init__(
        self,
        settings: Latency,
        space: SearchSpace,
        problem: Problem,
        compute: Compute,
        screen: Screen,
        kept: Path | None,
    ) -> None:
        self.settings, self.space, self.problem = settings, space, problem
        self.compute, self.screen, self.kept = compute, screen, kept
        self._table: LatencyTable | None = None

    @property
    def table(self) -> LatencyTable:
        """The latencies of all layers of the space, measured or read at the first use.

        Raises UserError if the device is absent, the space has no list of layers, or the table
        lacks a layer.
        """
        if self._table is None:
            self._table = self._find_table()
        return self._table

    def _find_table(self) -> LatencyTable:
        some = self.space.sample(np.random.default_rng(0))
        self.space.layers(
            some, self.problem, "final"
        )  # raises UserError if the space has no list of layers
        kept = self.kept is not None and self.kept.exists()
        known = read_table(self.kept, own=True) if self.kept is not None and kept else {}
        if self.settings.table is None:
            return self._measure_missing(known)
        file = self.kept if known and self.kept else at_home(self.settings.table)
        table = LatencyTable(known or read_table(file), [], str(file))
        for layer in all_layers(self.space, self.problem).values():
            table.milliseconds_of(layer)  # raises UserError now if the layer is missing
        return table

    @property
    def measure(self) -> Measure:
        """The latency of an architecture's final network, in ms: the sum over its layers."""
        table = self.table

        def measure(architecture: Architecture) -> float:
            return table.sum_of(self.space.layers(architecture, self.problem, "final"))

        return measure

    def keep(self, path: Path) -> None:
        """Also write the table to ``path``, unless no latency has been used."""
        if self._table is not None:
            self._table.files.append(path)
            self._table.write()

    def _measure_missing(self, kept: Mapping[str, float]) -> LatencyTable:
        """Return the table of this device; measures the layers that it lacks.

        kept: latencies of this run, which take precedence over those in the store.
        """
        settings, compute, screen = self.settings, self.compute, self.screen
        if settings.device != "auto":
            compute = Compute.choose(
                settings.device,
                precision="auto",
                deterministic=torch.are_deterministic_algorithms_enabled(),
            )
        key = {
            "device": compute.describe(),
            "processor": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "batch_size": settings.batch_size,
        }
        name = blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=6).hexdigest()
        path = at_home(settings.store) / f"{name}.csv"
        known = read_table(path, own=True) if path.exists() else {}
        known |= kept
        table = LatencyTable(known, [path], str(path), lambda layer: settings.time(layer, compute))
        layers = all_layers(self.space, self.problem)
        missing = [layer for name, layer in layers.items() if name not in known]
        if missing:
            with screen.stage("latency", len(missing)) as stage:
                for layer in missing:
                    known[layer.name] = settings.time(layer, compute)
                    stage.advance(1, {"ms": known[layer.name]})
        try:
            table.write()
        except OSError as error:
            raise UserError(
                f"cannot keep the latencies in {path}: {error.strerror}; choose another place with "
                "budget.latency.store=DIR"
            ) from error
        screen.say(f"latencies of {len(layers)} operations on {compute.describe()}: {path}")
        if missing and settings.networks >= MIN_CHECKED_NETWORKS:
            screen.say(self._comparison(table, compute))
        return table

    def _comparison(self, table: LatencyTable, compute: Compute) -> str:
        """Return a line that compares sums of latencies with measured whole networks."""
        from scipy import stats  # the import takes half a second

        space, problem, count = self.space, self.problem, self.settings.networks
        shape = problem.size.shape(problem.channels)
        summed, whole = [], []
        for index in range(count):
            architecture = space.sample(Streams(0).numpy("latency", index))

            def build(architecture: Architecture = architecture) -> nn.Module:
                return space.network(architecture, problem, "final")

            summed.append(table.sum_of(space.layers(architecture, problem, "final")))
            whole.append(self.settings.time(Layer("network", shape, build), compute))
        return (
            f"against {count} whole networks ({min(whole):.3g} to {max(whole):.3g} ms): "
            f"Pearson's r {stats.pearsonr(summed, whole).statistic:.3f}, Kendall's τ-b "
            f"{stats.kendalltau(summed, whole).statistic:.3f}, sum / whole "
            f"{np.mean(np.array(summed) / whole):.3f} on average"
        )


def all_layers(space: SearchSpace, problem: Problem) -> dict[str, Layer]:
    """Return every layer that networks of the space have, by name.

    Collects the layers of some random architectures, with every option of every group of decisions
    in turn. That finds all layers if each depends on one group of decisions; otherwise nearly all,
    and the rest are added when they occur. In binary spaces the network with everything on has all.
    """
    if space.binary:
        everything = Architecture(space.name, (1,) * len(space.decisions))
        return {layer.name: layer for layer in space.layers(everything, problem, "final")}
    found: dict[str, Layer] = {}
    for index in range(SAMPLES_FOR_LAYERS):
        start = space.sample(Streams(0).numpy("pieces", index))
        for group in space.groups:
            for architecture in space.variants(start, group):
                for layer in space.layers(architecture, problem, "final"):
                    found.setdefault(layer.name, layer)
    return found


def read_table(path: Path, *, own: bool = False) -> dict[str, float]:
    """Return the milliseconds by name of layer.

    own: the file is nasrun's own, in a run or a store, where a link is refused.
    Raises UserError if the file lacks the columns operation and ms, or a row is invalid.
    """
    wanted = dict.fromkeys(
        ("operation", "ms"), "a table of latencies has the columns operation and ms"
    )
    table = tables.read_table(path, wanted, f"cannot read the latencies in {path}", own=own)
    rows: dict[str, int] = {}
    found: dict[str, float] = {}
    for row, (name, ms) in enumerate(
        zip(table.cells["operation"], table.numbers("ms", "time"), strict=True)
    ):
        if ms.percent or not 0 <= ms.value < math.inf:
            text = table.cells["ms"][row]
            raise UserError(f"{table.place(row)}: ms = {text[:80]!r} is no time")
        if name in rows:
            raise UserError(
                f"{table.place(row)}: {name[:80]!r} has a latency already, in line "
                f"{table.lines[rows[name]]}"
            )
        rows[name] = row
        found[name] = ms.value
    return found


def write_table(path: Path, table: Mapping[str, float]) -> None:
    """Write a table that ``read_table`` reads back exactly; resumed runs depend on that."""
    rows = [(name, repr(ms)) for name, ms in sorted(table.items())]
    write_csv(path, ("operation", "ms"), rows)
