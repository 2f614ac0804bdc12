"""The speed of a network as a table on the screen, in a file, in a picture, and in words."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from nasrun.errors import plural
from nasrun.export.speed import Speed
from nasrun.report.canvas import COLUMN_INCHES, LINES, house_style, new_figure, save_figure
from nasrun.run.files import write_csv
from nasrun.run.processor import processor
from nasrun.run.run import Run


def machine(run: Run) -> dict[str, Any]:
    """Return what the times depend on: device, processor, threads, load of the machine."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "device": run.compute.describe(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load": load,
        "torch": str(torch.__version__),
    }


def rows_of(speeds: Sequence[Speed]) -> list[dict[str, Any]]:
    """Return the rows for result.json."""
    return [
        {
            "engine": one.engine,
            "batch_size": one.batch_size,
            "milliseconds": one.milliseconds.to_json(),
            "images_per_second": one.images_per_second,
            "memory_bytes": one.memory,
            "spread": one.spread,
            "repeats": one.repeats,
        }
        for one in speeds
    ]


def in_words(speeds: Sequence[Speed], run: Run) -> list[str]:
    """Tell each speed in a sentence, with the device."""
    facts = machine(run)
    where = {"torch": f"{facts['device']} ({facts['processor']})"}
    cpu = f"{facts['processor']}, {plural(facts['threads'], 'thread')}"
    return [
        f"{one.engine}, {plural(one.batch_size, 'image')}: "
        f"{one.milliseconds.value:.3g} ms (95 % interval {one.milliseconds.low:.3g} to "
        f"{one.milliseconds.high:.3g}) on {where.get(one.engine, cpu)}"
        for one in speeds
    ]


def table(speeds: Sequence[Speed], confidence: float) -> Iterator[str]:
    """Yield the lines of the table on the screen."""
    title = f"ms ({100 * confidence:g} % interval)"
    yield f"{'engine':<12}{'images':>8}  {title:<28}{'images/s':>10}{'memory':>12}"
    for one in speeds:
        time = one.milliseconds
        told = f"{time.value:.3g} ({time.low:.3g} to {time.high:.3g})"
        memory = "" if one.memory is None else f"{one.memory / 1e6:.1f} MB"
        yield (
            f"{one.engine:<12}{one.batch_size:>8}  {told:<28}{one.images_per_second:>10,.0f}"
            f"{memory:>12}"
        )


def write_table(path: Path, speeds: Sequence[Speed]) -> None:
    """Write benchmark.csv."""
    write_csv(
        path,
        (
            *("engine", "batch_size", "ms", "ms_low", "ms_high", "images_per_second"),
            *("memory_bytes", "spread", "repeats"),
        ),
        (
            (
                *(one.engine, one.batch_size, one.milliseconds.value, one.milliseconds.low),
                *(one.milliseconds.high, one.images_per_second),
                *("" if one.memory is None else one.memory, one.spread, one.repeats),
            )
            for one in speeds
        ),
    )


def plot_speed(speeds: Sequence[Speed], path: Path, title: str) -> list[Path]:
    """Plot latency and images a second by batch size, a line for each engine, with intervals.

    path: without suffix; returns the files written.
    """
    sizes = sorted({one.batch_size for one in speeds})
    with house_style():
        figure = new_figure(2 * COLUMN_INCHES, 2.5)
        left, right = figure.subplots(1, 2)
        for place, engine in enumerate(dict.fromkeys(one.engine for one in speeds)):
            found = [one for one in speeds if one.engine == engine]
            at = [one.batch_size for one in found]
            style: Any = {
                "linestyle": LINES[place % len(LINES)],
                "color": f"C{place}",
                "marker": "o",
                "markersize": 3,
                "linewidth": 1.2,
                "capsize": 2,
                "label": engine,
            }
            for axes, factor in ((left, None), (right, 1000)):
                values, low, high = (
                    [
                        time if factor is None else factor * one.batch_size / time
                        for one, time in zip(found, times, strict=True)
                    ]
                    for times in (
                        [one.milliseconds.value for one in found],
                        [one.milliseconds.low for one in found],
                        [one.milliseconds.high for one in found],
                    )
                )
                errors = [
                    [abs(v - end) for v, end in zip(values, ends, strict=True)]
                    for ends in ((low, high) if factor is None else (high, low))
                ]
                axes.errorbar(at, values, yerr=errors, **style)
        for axes, label in ((left, "time of a batch (ms)"), (right, "images a second")):
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(sizes, [str(size) for size in sizes])
            axes.minorticks_off()
            axes.yaxis.set_major_formatter("{x:g}")
            axes.set_xlabel("images in a batch")
            axes.set_ylabel(label)
        left.legend(frameon=False)
        figure.suptitle(title, fontsize=8, x=0.01, ha="left")
        return save_figure(figure, path)
