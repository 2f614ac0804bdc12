"""A ranking as a table of architectures, as numbers in JSON, as pictures, and on the screen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
from rich import box
from rich.table import Table

from nasrun.metrics.bootstrap import Estimate
from nasrun.metrics.report import RankReport
from nasrun.report.figures import Panel, plot_curves, plot_panels, plot_scatter
from nasrun.report.size_bias import SizeBiasReport
from nasrun.report.words import estimate
from nasrun.run.commands import command, shown
from nasrun.run.files import write_csv, write_json
from nasrun.run.layout import (
    RANKING,
    RANKING_PICTURE,
    RANKING_TABLE,
    SECOND_PICTURE,
    TAU_PICTURE,
)
from nasrun.run.run import Run

Agreement = Mapping[str, Estimate]
"""Kendall's tau-b of second scores: ``with_truth``, and ``with_scores``, the first scores."""


@dataclass(frozen=True)
class RankedArchitectures:
    """The architectures of a ranking, with sizes and true accuracies.

    names: [n]. params, macs: int [n]. truth_by_seed: true accuracies, [seeds, n].
    """

    names: Sequence[str]
    params: npt.NDArray[np.int64]
    macs: npt.NDArray[np.int64]
    truth_by_seed: npt.NDArray[np.float64]

    @property
    def truth(self) -> npt.NDArray[np.float64]:
        """The mean true accuracy over seeds, [n]."""
        mean: npt.NDArray[np.float64] = self.truth_by_seed.mean(0)
        return mean

    def write_table(self, run: Run, scores: Mapping[str, Sequence[float]]) -> None:
        """Write ranking.csv: a row for each architecture; scores: [n] each, by column."""
        seeds = [f"truth_{seed}" for seed in range(len(self.truth_by_seed))]
        columns = [
            *(self.names, self.params.tolist(), self.macs.tolist(), self.truth.tolist()),
            *self.truth_by_seed.tolist(),
            *scores.values(),
        ]
        write_csv(
            run.directory / RANKING_TABLE,
            ["architecture", "params", "macs", "truth", *seeds, *scores],
            zip(*columns, strict=True),
        )


@dataclass(frozen=True)
class SecondScores:
    """Scores by ``rank.also``, beside the first scores and the truth.

    values: [n], after the last epoch. agreement: by epoch. label: of the axis in plots.
    logarithm: whether the logarithms of the values are plotted.
    """

    values: Sequence[float]
    agreement: Mapping[int, Agreement]
    label: str
    logarithm: bool

    @property
    def last(self) -> Agreement:
        """The agreement after the last epoch."""
        return list(self.agreement.values())[-1]

    def to_json(self) -> dict[str, Any]:
        """{"axis", "logarithm", "epochs": {EPOCH: {NAME: {"value", "low", "high"}}}}."""
        return {
            "axis": self.label,
            "logarithm": self.logarithm,
            "epochs": {
                str(epoch): {name: found.to_json() for name, found in agreement.items()}
                for epoch, agreement in self.agreement.items()
            },
        }

    def result(self) -> dict[str, float]:
        """Return the defined numbers for result.json."""
        return {
            f"also_{name}{suffix}": value
            for name, found in self.last.items()
            for suffix, value in (("", found.value), ("_low", found.low), ("_high", found.high))
            if math.isfinite(value)
        }

    def plot(
        self,
        run: Run,
        scores: npt.ArrayLike,
        truth: npt.ArrayLike,
        params: npt.NDArray[np.int64],
    ) -> None:
        """Plot also.png and .svg: the first scores, and the truth, against the second."""
        values = np.asarray(self.values)
        x = np.log(np.maximum(values, 1e-300)) if self.logarithm else values
        panels = [
            Panel("", x, y, params / 1e6, self.last[name], label)
            for label, y, name in (
                ("supernet accuracy", scores, "with_scores"),
                ("true accuracy", truth, "with_truth"),
            )
        ]
        plot_panels(panels, run.directory / SECOND_PICTURE, x=self.label)

    def say(self, run: Run) -> None:
        """Say the agreement in one line."""
        words = [
            f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f}) {words}"
            for words, found in (
                ("with the scores", self.last["with_scores"]),
                ("with the truth", self.last["with_truth"]),
            )
        ]
        run.say(f"τ-b of rank.also     {', '.join(words)} ({SECOND_PICTURE}.png)")


def write_ranking(
    run: Run,
    reports: Mapping[int, RankReport],
    ceiling: Mapping[str, Estimate],
    second: SecondScores | None,
    bias: SizeBiasReport,
) -> None:
    """Write ranking.json: measures by epoch, noise ceiling, bias to size, second scores."""
    content: dict[str, Any] = {
        "epochs": {str(epoch): found.to_json() for epoch, found in reports.items()},
        "noise_ceiling": {name: found.to_json() for name, found in ceiling.items()},
        "size_bias": bias.to_json(),
    }
    if second is not None:
        content["also"] = second.to_json()
    write_json(run.directory / RANKING, content)


def ranking_result(
    report: RankReport,
    ceiling: Mapping[str, Estimate],
    scores: npt.ArrayLike,
    truth: npt.ArrayLike,
    second: SecondScores | None,
    bias: SizeBiasReport,
) -> dict[str, Any]:
    """Return the defined measures of the last ranking, for result.json."""
    result: dict[str, Any] = {
        **{measure.name: finite(measure.estimate.value) for measure in report.measures},
        "kendall_low": finite(report["kendall"].low),
        "kendall_high": finite(report["kendall"].high),
        "architectures": report.architectures,
        **{f"ceiling_{name}": finite(found.value) for name, found in ceiling.items()},
        **spread_of("score", scores),
        **spread_of("truth", truth),
        **bias.result(),
        **(second.result() if second is not None else {}),
    }
    return {name: value for name, value in result.items() if value is not None}


def finite(value: float) -> float | None:
    """Replace nan and infinity, which JSON does not have, by None."""
    return float(value) if math.isfinite(value) else None


def spread_of(name: str, values: npt.ArrayLike) -> dict[str, float]:
    """Return the smallest, the median and the largest score, for result.json."""
    low, middle, high = np.quantile(np.asarray(values), [0, 0.5, 1]).tolist()
    return {f"{name}_min": low, f"{name}_median": middle, f"{name}_max": high}


def plot_ranking(
    run: Run,
    reports: Mapping[int, RankReport],
    scores: npt.ArrayLike,
    truth: npt.ArrayLike,
    params: npt.NDArray[np.int64],
) -> None:
    """Plot ranking.png and .svg: score against truth; with several epochs also tau by epoch."""
    last = list(reports.values())[-1]
    plot_scatter(
        scores,
        truth,
        params / 1e6,
        run.directory / RANKING_PICTURE,
        tau=last["kendall"],
        confidence=last.confidence,
    )
    if len(reports) > 1:
        points = [(epoch, report["kendall"]) for epoch, report in reports.items()]
        plot_curves({"supernet": points}, run.directory / TAU_PICTURE)


def say_ranking(
    run: Run, reports: Mapping[int, RankReport], ceiling: Mapping[str, Estimate]
) -> None:
    """Say the last ranking in full, the others in a line each, and the ceiling."""
    last = list(reports.values())[-1]
    table = Table(
        "",
        "value",
        f"{100 * last.confidence:g} % interval",
        box=box.SIMPLE_HEAD,
        title=f"{last.architectures:,} architectures",
        title_justify="left",
    )
    for group, rows in groupby(last.rows(), key=lambda row: row[0]):
        table.add_row(f"[bold]{group}[/]")
        for _, label, value, interval in rows:
            table.add_row(f"  {label}", value, interval)
    if ceiling:
        table.add_row("[bold]one ground-truth seed against another[/]")
        words = {"kendall": "Kendall τ-b", "pairwise_accuracy": "pairwise accuracy"}
        for name, found in ceiling.items():
            interval = f"{found.low:.3f} to {found.high:.3f}"
            table.add_row(f"  {words.get(name, name.capitalize())}", f"{found.value:.3f}", interval)
    run.say()
    run.screen.show(table)
    if len(reports) > 1:
        curve = Table("epoch", "Kendall τ-b", "pairwise accuracy", box=box.SIMPLE_HEAD)
        for epoch, report in reports.items():
            tau, pairs = report["kendall"], report["pairwise_accuracy"]
            curve.add_row(
                str(epoch),
                f"{tau.value:.3f} ({tau.low:.3f} to {tau.high:.3f})",
                f"{100 * pairs.value:.1f} %",
            )
        run.screen.show(curve)


def say_end(run: Run, reports: Mapping[int, RankReport], ceiling: Mapping[str, Estimate]) -> None:
    """Say the warning of the last ranking, if there is one, and show the end of the run."""
    last = list(reports.values())[-1]
    if last.warning:
        run.say(last.warning, "yellow")
    found = last["kendall"]
    rows = [("Kendall τ-b", f"{estimate(found)}, {last.architectures:,} architectures")]
    if "kendall" in ceiling:
        rows.append(("at most", f"{estimate(ceiling['kendall'])}, one seed against another"))
    rows.append(("tables, pictures", f"{RANKING_PICTURE}.png, {RANKING_TABLE}, {RANKING}"))
    where = shown(run.directory)
    run.show_end(
        "ranking done",
        rows,
        [
            command("search", f"from={where}"),
            command("rank", f"from={where}", "seed=1"),
            command("report", where),
        ],
    )
