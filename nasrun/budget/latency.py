"""Latencies of layers, measured on the device at hand or read from a table, and their sums."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import nn

from nasrun.budget.calibration import OFFSET, SCALE, Calibration, calibrate
from nasrun.budget.latency_table import LatencyTable, read_table
from nasrun.budget.timing import times_in_turns
from nasrun.errors import UserError
from nasrun.limits import Count
from nasrun.metrics.median import median_of
from nasrun.run.compute import Compute
from nasrun.run.files import at_home
from nasrun.run.processor import processor
from nasrun.run.screen import Screen
from nasrun.search_space.base import Measure, SearchSpace
from nasrun.search_space.layer import Layer
from nasrun.streams import Streams
from nasrun.values import Architecture, Problem

SAMPLES_FOR_LAYERS = 8
"""Random architectures whose variants are searched for layers."""

MIN_CHECKED_NETWORKS = 3
"""Fewer whole networks give no meaningful correlation with the sums of latencies."""

ATTEMPTS = 2
"""Measurements that are made before those that fail their check are refused."""

REPEATS_OF_WINNER = 50
"""Measurements of a winner as a whole network, at least; its interval needs many."""


class Latency:
    """The settings of latencies.

    The latency of a network is the sum over its layers (``SearchSpace.layers``), calibrated against
    whole networks.

    table: a CSV file with the columns operation and ms, instead of measurements.
    store: folder of measured tables, one for each device, setting and space; nothing is measured
    twice.
    device: the device whose latency is measured. batch_size: images in a forward pass.
    repeats: measurements, of which the median is taken; ``warm_up`` more run before them.
    networks: whole networks that are measured to calibrate and check the sums.
    min_r, max_residual: Pearson's r of the sums with them, or the largest relative error of the
    calibrated sums, that measurements need to be used and kept.
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
        min_r: Annotated[float, Field(ge=-1, le=1)] = 0.9,
        max_residual: Annotated[float, Field(ge=0, le=1)] = 0.1,
    ) -> None:
        self.table, self.store, self.device = table, store, device
        self.batch_size, self.repeats, self.warm_up = batch_size, repeats, warm_up
        self.networks = networks
        self.min_r, self.max_residual = min_r, max_residual

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

    def times(
        self,
        layers: Sequence[Layer],
        compute: Compute,
        *,
        repeats: int | None = None,
        advance: Callable[[int], object] = lambda _: None,
    ) -> list[list[float]]:
        """Measure forward passes of the layers in turns, ``repeats`` of each, in milliseconds.

        repeats: None: those of the settings. advance: see ``times_in_turns``.
        """
        return times_in_turns(
            layers,
            compute,
            batch_size=self.batch_size,
            warm_up=self.warm_up,
            repeats=repeats or self.repeats,
            advance=advance,
        )

    def time(self, layer: Layer, compute: Compute) -> float:
        """Return the milliseconds of a forward pass in evaluation mode, the median of repeats."""
        (times,) = self.times([layer], compute)
        return median(times)


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

    def of_winner(self, architecture: Architecture) -> dict[str, Any]:
        """Measure a network as a whole, and say it; {} if no latency has been used.

        Returns entries of result.json: ``latency_ms``, the median of its forward passes, with its
        interval at 95 %, and ``latency_ms_predicted``, by which it was chosen. With a table of the
        user, perhaps of another device, only the latter.
        """
        if self._table is None:
            return {}
        predicted = self.measure(architecture)
        found: dict[str, Any] = {"latency_ms_predicted": predicted}
        if self.settings.table is not None:
            return found
        compute = self._device()
        repeats = max(self.settings.repeats, REPEATS_OF_WINNER)
        (times,) = self.settings.times([self._network(architecture)], compute, repeats=repeats)
        found_ms = median_of(times)
        self.screen.say(
            f"latency of the winner as a whole {found_ms.value:.3g} ms ({found_ms.low:.3g} to "
            f"{found_ms.high:.3g}), "
            f"predicted {predicted:.3g}; batches of {self.settings.batch_size}, "
            f"{compute.describe()}"
        )
        interval = [found_ms.low, found_ms.high]
        return {"latency_ms": found_ms.value, "latency_ms_interval": interval, **found}

    def _device(self) -> Compute:
        """Return the device that is measured."""
        if self.settings.device == "auto":
            return self.compute
        on_gpu = self.settings.device.startswith("cuda")
        return Compute.choose(
            self.settings.device,
            precision="tf32" if on_gpu and self.compute.tf32 else "auto",
            deterministic=torch.are_deterministic_algorithms_enabled(),
            repeats=True,
        )

    def _network(self, architecture: Architecture) -> Layer:
        """Return the final network of an architecture, to be measured like a layer."""
        space, problem = self.space, self.problem

        def build() -> nn.Module:
            return space.network(architecture, problem, "final")

        return Layer("network", problem.shape, build)

    def _store(self, compute: Compute, layers: Iterable[str]) -> Path:
        """Return the file of the latencies of these layers on a device, named for people too."""
        settings = self.settings
        key = {
            "device": compute.describe(),
            "processor": processor(),
            "torch": torch.__version__,
            "batch_size": settings.batch_size,
            "checked": settings.networks >= MIN_CHECKED_NETWORKS and settings.min_r > 0,
            "space": self.space.name,
            "layers": sorted(layers),
        }
        name = blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=6).hexdigest()
        device = "" if compute.device.type == "cuda" else f"{processor()} "
        words = re.sub(r"[^a-z0-9]+", "-", f"{device}{compute.describe()}".lower()).strip("-")
        return at_home(settings.store) / f"{words[:80]}-{name}.csv"

    def _measure_missing(self, kept: Mapping[str, float]) -> LatencyTable:
        """Return the table of this device; measures the layers that it lacks.

        kept: latencies of this run, which take precedence over those in the store.
        Raises UserError if what is measured here cannot be trusted; then nothing is stored.
        """
        settings, compute, screen = self.settings, self._device(), self.screen
        layers = all_layers(self.space, self.problem)
        path = self._store(compute, layers)
        known = read_table(path, own=True) if path.exists() else {}
        known |= kept
        table = LatencyTable(known, [path], str(path), lambda layer: settings.time(layer, compute))
        missing = [layer for name, layer in layers.items() if name not in known]
        for attempt in range(ATTEMPTS) if missing else ():
            found = self._measured(table, missing, compute)
            if found is None or found.is_good(settings.min_r, settings.max_residual):
                break
            self._complain(found, last=attempt + 1 == ATTEMPTS)
        try:
            table.write()
        except OSError as error:
            raise UserError(
                f"cannot keep the latencies in {path}: {error.strerror}; choose another place with "
                "budget.latency.store=DIR"
            ) from error
        screen.say(f"latencies of {len(layers)} operations on {compute.describe()}: {path}")
        if missing and SCALE not in table.milliseconds:
            screen.say("they were not checked against whole networks (budget.latency.networks)")
        return table

    def _measured(
        self, table: LatencyTable, missing: Sequence[Layer], compute: Compute
    ) -> Calibration | None:
        """Put measured latencies into the table, with their calibration; None: it has one.

        The whole networks take turns with the operations. The table is not written.
        """
        settings, known = self.settings, table.milliseconds
        count = settings.networks if SCALE not in known else 0
        count = count if count >= MIN_CHECKED_NETWORKS else 0
        rngs = (Streams(0).numpy("latency", index) for index in range(count))
        chosen = [self.space.sample(rng) for rng in rngs]
        layers = [*missing, *map(self._network, chosen)]
        turns = settings.warm_up + settings.repeats
        with self.screen.stage("latency", turns * len(layers)) as stage:
            times = settings.times(layers, compute, advance=lambda done: stage.advance(done, {}))
        medians = [median(each) for each in times]
        known |= {layer.name: ms for layer, ms in zip(missing, medians, strict=False)}
        if not count:
            return None
        sums = [
            table.plain_sum_of(self.space.layers(each, self.problem, "final")) for each in chosen
        ]
        wholes = medians[len(missing) :]
        found = calibrate(sums, wholes)
        self.screen.say(
            f"against {count} whole networks ({min(wholes):.3g} to {max(wholes):.3g} ms): "
            f"{found.in_words()}"
        )
        if found.is_good(settings.min_r, settings.max_residual):
            known |= {SCALE: found.scale, OFFSET: found.offset}
        return found

    def _complain(self, found: Calibration, *, last: bool) -> None:
        """Say that measurements are bad and made again; raises UserError if they were."""
        settings = self.settings
        why = (
            f"sums of operations go with whole networks at r {found.r:.2f} (needed: "
            f"{settings.min_r:g}) and miss them by up to {100 * found.residual:.0f} % (allowed: "
            f"{100 * settings.max_residual:.0f} %)"
        )
        if not last:
            self.screen.say(f"measured again, since {why}; is the machine busy?", "yellow")
            return
        raise UserError(
            f"the latencies that are measured here cannot be trusted: {why}, twice. Close other "
            "programs, or give a table, budget.latency.table=FILE, or measure more often, "
            f"budget.latency.repeats={5 * settings.repeats}, or take them, budget.latency.min_r=-1"
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
