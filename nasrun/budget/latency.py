"""Latency: measured per operation on the device at hand into a table, or read from a user's."""

from __future__ import annotations

import csv
import io
import json
import math
import platform
import time
from collections.abc import Callable, Mapping
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
from nasrun.run.compute import Compute
from nasrun.run.files import read_bytes, write_atomic
from nasrun.run.screen import Screen
from nasrun.search_space.base import Measure, SearchSpace
from nasrun.search_space.layer import Layer
from nasrun.streams import Streams
from nasrun.values import Architecture, Problem

LARGEST = 2**26
"""Bytes of a table, at most."""


@dataclass
class Table:
    """Milliseconds by the name of an operation.

    files: where it is kept; source: what errors call it; time: measures an operation that is
    missing; None: then that is an error.
    """

    milliseconds: dict[str, float]
    files: list[Path]
    source: str
    time: Callable[[Layer], float] | None = None

    def of(self, layer: Layer) -> float:
        """Raises UserError where the operation is missing and cannot be measured."""
        if layer.name not in self.milliseconds:
            if self.time is None:
                raise UserError(f"{self.source} has no latency of operation {layer.name!r}")
            self.milliseconds[layer.name] = self.time(layer)
            self.write()
        return self.milliseconds[layer.name]

    def measure(self, space: SearchSpace, problem: Problem) -> Measure:
        """The latency of an architecture's final network: the sum over its operations."""

        def measure(architecture: Architecture) -> float:
            return math.fsum(map(self.of, space.layers(architecture, problem, "final")))

        return measure

    def write(self) -> None:
        for path in self.files:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_table(path, self.milliseconds)


class Latency:
    """How latencies come about.

    table: a CSV file with the columns operation and ms, instead of measurements; store: folder
    where measured tables are kept, one for each device and setting, so that nothing is measured
    twice. device: on which it counts; batch_size: images at once; repeats: of which the median is
    taken, after ``warm_up`` further ones; networks: how many whole networks the sums are checked
    against. The latency of a network is the sum over its operations (``SearchSpace.layers``).
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
        self.found: Table | None = None

    def over(
        self, space: SearchSpace, problem: Problem, compute: Compute, kept: Path | None = None
    ) -> Measure:
        """The latency of an architecture's final network, in ms.

        kept: the table that this run has gone by before, if it exists.
        Raises UserError over an absent device, a space without a list of operations, and a table
        that lacks one.
        """
        space.layers(space.sample(np.random.default_rng(0)), problem, "final")
        earlier = read_table(kept) if kept is not None and kept.exists() else {}
        if self.table is None:
            self.found = self._measured(space, problem, compute, earlier)
        else:
            file = kept if earlier and kept else Path(self.table).expanduser()
            self.found = Table(earlier or read_table(file), [], str(file))
            for layer in _all_layers(space, problem).values():
                self.found.of(layer)  # raises now over one that is missing
        return self.found.measure(space, problem)

    def keep(self, kept: Path) -> None:
        """Keep the table that ``over`` has found, if any, with the run."""
        if self.found is not None:
            self.found.files.append(kept)
            self.found.write()

    def _measured(
        self,
        space: SearchSpace,
        problem: Problem,
        compute: Compute,
        earlier: Mapping[str, float],
    ) -> Table:
        """The table of this device, with whatever operations it lacked measured now.

        earlier: what this run has gone by before; it goes by one table from beginning to end.
        """
        if self.device != "auto":
            compute = Compute.choose(
                self.device,
                precision="auto",
                deterministic=torch.are_deterministic_algorithms_enabled(),
            )
        setting = {
            "device": compute.describe(),
            "processor": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "batch_size": self.batch_size,
        }
        name = blake2b(json.dumps(setting, sort_keys=True).encode(), digest_size=6).hexdigest()
        path = Path(self.store).expanduser() / f"{name}.csv"
        known = read_table(path) if path.exists() else {}
        known |= earlier
        table = Table(known, [path], str(path), lambda layer: self.time(layer, compute))
        wanted = _all_layers(space, problem)
        missing = [layer for name, layer in wanted.items() if name not in known]
        screen = Screen()
        if missing:
            with screen.stage("latency", len(missing)) as stage:
                for layer in missing:
                    known[layer.name] = self.time(layer, compute)
                    stage.advance(1, {"ms": known[layer.name]})
        try:
            table.write()
        except OSError as error:
            raise UserError(
                f"cannot keep the latencies in {path}: {error.strerror}; choose another place with "
                "budget.latency.store=DIR"
            ) from error
        screen.say(f"latencies of {len(wanted)} operations on {compute.describe()}: {path}")
        if missing and self.networks >= 3:
            screen.say(self._check(space, problem, table, compute))
        return table

    def _check(self, space: SearchSpace, problem: Problem, table: Table, compute: Compute) -> str:
        """The sums against whole networks, in words."""
        from scipy import stats  # half a second, and only here

        measure = table.measure(space, problem)
        shape = (problem.channels, problem.size, problem.size)
        summed, whole = [], []
        for index in range(self.networks):
            architecture = space.sample(Streams(0).numpy("latency", index))

            def build(architecture: Architecture = architecture) -> nn.Module:
                return space.network(architecture, problem, "final")

            summed.append(measure(architecture))
            whole.append(self.time(Layer("network", shape, build), compute))
        return (
            f"against {self.networks} whole networks ({min(whole):.3g} to {max(whole):.3g} ms): "
            f"Pearson's r {stats.pearsonr(summed, whole).statistic:.3f}, Kendall's τ-b "
            f"{stats.kendalltau(summed, whole).statistic:.3f}, sum / whole "
            f"{np.mean(np.array(summed) / whole):.3f} on average"
        )

    @torch.inference_mode()
    def time(self, layer: Layer, compute: Compute) -> float:
        """Milliseconds of a forward pass in evaluation mode, the median of ``repeats``."""
        with Streams(0).default("latency"):
            module = compute.place(layer.build()).eval()
        images = compute.images(torch.zeros(self.batch_size, *layer.shape, device=compute.device))

        def once() -> float:
            began = time.perf_counter()
            with compute.autocast():
                module(images)
            if compute.device.type == "cuda":
                torch.cuda.synchronize(compute.device)
            return 1000 * (time.perf_counter() - began)

        for _ in range(self.warm_up):
            once()
        return median(once() for _ in range(self.repeats))


def _all_layers(space: SearchSpace, problem: Problem) -> dict[str, Layer]:
    """Every operation that networks of the space have, by name.

    Those of some random architectures, each with every option of every group of decisions in turn:
    all, where an operation depends on one group; else nearly all, and the others follow when they
    are met. Where decisions are off or on, the network with everything on has them all.
    """
    if space.binary:
        everything = Architecture(space.name, (1,) * len(space.decisions))
        return {layer.name: layer for layer in space.layers(everything, problem, "final")}
    found: dict[str, Layer] = {}
    for index in range(8):
        start = space.sample(Streams(0).numpy("pieces", index))
        for group in space.groups:
            for architecture in space.variants(start, group):
                for layer in space.layers(architecture, problem, "final"):
                    found.setdefault(layer.name, layer)
    return found


def read_table(path: Path) -> dict[str, float]:
    """Raises UserError where the file has not the columns operation and ms, or a row is amiss."""
    try:
        text = read_bytes(path, LARGEST).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the latencies in {path}: {error}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from error
    if not {"operation", "ms"} <= set(reader.fieldnames or ()):
        raise UserError(f"{path}: a table of latencies has the columns operation and ms")
    table: dict[str, float] = {}
    for line, row in rows:
        try:
            value = float(row["ms"])
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise UserError(f"{path}, line {line}: ms = {row['ms'][:80]!r} is no time")
        table[row["operation"]] = value
    return table


def write_table(path: Path, table: Mapping[str, float]) -> None:
    """What ``read_table`` gives back to the last digit: a run goes on by the same numbers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(
        [("operation", "ms"), *((name, repr(ms)) for name, ms in sorted(table.items()))]
    )
    write_atomic(path, lambda file: file.write(text.getvalue().encode()))
