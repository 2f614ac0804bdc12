"""A ranking as tables on the screen and as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby

import numpy as np
import numpy.typing as npt
from rich import box
from rich.table import Table

from nasrun.metrics.bootstrap import Estimate
from nasrun.metrics.report import RankReport
from nasrun.report import figures
from nasrun.run.run import Run


def plot(
    run: Run,
    reports: Mapping[int, RankReport],
    scores: npt.ArrayLike,
    truth: npt.ArrayLike,
    params: npt.NDArray[np.int64],
) -> None:
    """ranking.png and .svg: score against truth; with several epochs also tau by epoch."""
    last = list(reports.values())[-1]
    figures.scatter(
        scores,
        truth,
        params / 1e6,
        run.directory / "ranking",
        tau=last["kendall"],
        confidence=last.confidence,
    )
    if len(reports) > 1:
        points = [(epoch, report["kendall"]) for epoch, report in reports.items()]
        figures.curves({"supernet": points}, run.directory / "tau_by_epoch")


def say(run: Run, reports: Mapping[int, RankReport], ceiling: Mapping[str, Estimate]) -> None:
    """The last ranking in full, the others in a line each, the ceiling, and a warning."""
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
    run.screen.console.print(table)
    if len(reports) > 1:
        curve = Table("epoch", "Kendall τ-b", "pairwise accuracy", box=box.SIMPLE_HEAD)
        for epoch, report in reports.items():
            tau, pairs = report["kendall"], report["pairwise_accuracy"]
            curve.add_row(
                str(epoch),
                f"{tau.value:.3f} ({tau.low:.3f} to {tau.high:.3f})",
                f"{100 * pairs.value:.1f} %",
            )
        run.screen.console.print(curve)
    if last.warning:
        run.say(last.warning, "yellow")
    run.say(f"everything is in     {run.directory} (ranking.png, ranking.csv, ranking.json)")
