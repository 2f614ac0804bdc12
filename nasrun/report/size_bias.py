"""The bias of a ranking to size: a table on the screen, numbers in JSON, and a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich import box
from rich.table import Table

from nasrun.metrics.size import size_groups
from nasrun.metrics.size_bias import SizeBias, rank_errors
from nasrun.report.canvas import COLUMN_INCHES, house_style, new_figure, save_figure
from nasrun.report.figures import MIN_RASTER_POINTS
from nasrun.report.words import estimate
from nasrun.run.layout import SIZE_BIAS_PICTURE
from nasrun.run.run import Run

MIN_LOG_RATIO = 4
"""Ratio of the largest to the smallest size above which the axis is logarithmic."""

WORDS = {"params": "parameters", "macs": "multiply-adds"}


@dataclass(frozen=True)
class SizeClasses:
    """The training that each tercile of size got, from small to large; nan: it is not known.

    steps: share of the trained paths. losses: mean training loss in the last epoch, in nats, of the
    steps with one path.
    """

    steps: tuple[float, ...]
    losses: tuple[float, ...]

    def to_json(self) -> dict[str, list[float | None]]:
        """{"steps", "losses"}; a value is null if it is not known."""
        return {
            name: [value if math.isfinite(value) else None for value in values]
            for name, values in (("steps", self.steps), ("losses", self.losses))
        }


@dataclass(frozen=True)
class SizeBiasReport:
    """The bias to each size of the last ranking.

    biases: by the name of the size. classes: likewise what the terciles got in training; empty if
    the supernet was not trained here.
    """

    biases: Mapping[str, SizeBias]
    classes: Mapping[str, SizeClasses]

    def to_json(self) -> dict[str, Any]:
        """{SIZE: {..., "thirds", "steps", "losses"}}; the last two are null if not known."""
        return {
            name: {
                **bias.to_json(),
                "steps": None,
                "losses": None,
                **(self.classes[name].to_json() if name in self.classes else {}),
            }
            for name, bias in self.biases.items()
        }

    def result(self) -> dict[str, float]:
        """Return the defined numbers for result.json."""
        found: dict[str, float] = {}
        for name, bias in self.biases.items():
            found |= {
                f"size_bias_{name}": bias.kendall.value,
                f"size_bias_{name}_unbiased": bias.unbiased,
                f"size_bias_{name}_given_truth": bias.given_truth.value,
                f"size_bias_{name}_slope": bias.slope.value,
            }
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def say(self, run: Run) -> None:
        """Show the biases in one table."""
        table = Table(
            *("size", *(WORDS[name] for name in self.biases)),
            box=box.SIMPLE_HEAD,
            title="rank errors above 0: overrated; thirds: small / medium / large",
            title_justify="left",
        )
        biases = self.biases.values()
        table.add_row("τ-b with rank error", *(estimate(b.kendall) for b in biases))
        table.add_row("  if unbiased, as noisy", *(f"{b.unbiased:.3f}" for b in biases))
        table.add_row("ρ with score given truth", *(estimate(b.given_truth) for b in biases))
        table.add_row("rank error by doubling, %", *(estimate(b.slope, 1) for b in biases))
        thirds = (" / ".join(f"{value:+.1f}" for value in b.thirds) for b in biases)
        table.add_row("rank error by third, %", *thirds)
        classes = [self.classes[name] for name in self.biases if name in self.classes]
        if classes:
            table.add_row("steps by third, %", *(_by_third(c.steps, 100, 1) for c in classes))
            table.add_row("training loss by third", *(_by_third(c.losses, 1, 3) for c in classes))
        run.screen.show(table)

    def plot(
        self,
        run: Run,
        scores: npt.ArrayLike,
        truth: npt.ArrayLike,
        sizes: Mapping[str, npt.ArrayLike],
    ) -> None:
        """Plot size_bias.png and .svg: rank error against each size.

        Each tercile has its mean, and above it its training loss, if that is known.
        """
        from matplotlib.ticker import LogLocator, NullFormatter  # slow to import

        errors = rank_errors(scores, truth)
        with house_style():
            figure = new_figure(2 * COLUMN_INCHES, 2.6)
            panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
            for axes, (name, values) in zip(panels, sizes.items(), strict=True):
                size = np.asarray(values, dtype=np.float64) / 1e6
                axes.scatter(
                    *(size, errors),
                    s=float(np.clip(2000 / len(size), 1.5, 14)),
                    color="0.6",
                    linewidths=0,
                    rasterized=len(size) > MIN_RASTER_POINTS,
                )
                axes.axhline(0, color="0.3", linewidth=0.6)
                third = size_groups(size)
                for index, mean in enumerate(self.biases[name].thirds):
                    inside = size[third == index]
                    if len(inside):
                        axes.hlines(mean, inside.min(), inside.max(), color="C1", linewidth=2)
                        loss = (
                            self.classes[name].losses[index] if name in self.classes else math.nan
                        )
                        if math.isfinite(loss):
                            axes.annotate(
                                *(f"loss {loss:.3g}", (inside.min(), mean)),
                                xytext=(2, 3),
                                textcoords="offset points",
                                fontsize=6,
                                color="C1",
                            )
                if size.max() > MIN_LOG_RATIO * size.min():
                    axes.set_xscale("log")
                    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                    axes.xaxis.set_minor_formatter(NullFormatter())
                axes.xaxis.set_major_formatter("{x:g}")
                axes.set_xlabel(f"{WORDS[name]} (M)")
                axes.set_title(f"τ-b {estimate(self.biases[name].kendall)}", loc="left", fontsize=7)
            panels[0].set_ylabel("rank error (% of ranks)")
            save_figure(figure, run.directory / SIZE_BIAS_PICTURE)


def _by_third(values: Sequence[float], factor: float, digits: int) -> str:
    """Write a value of each tercile; a dash where it is not known."""
    return " / ".join(f"{factor * v:.{digits}f}" if math.isfinite(v) else "–" for v in values)
