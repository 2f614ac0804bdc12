"""The health report on the screen: two tables."""

from __future__ import annotations

from statistics import fmean

from rich import box
from rich.table import Table

from nasrun.run.run import Run
from nasrun.task.health import HEALTH, PROTOCOLS, HealthReport

MOST = 20
"""Rows of a table; the file has them all."""


def say_health(run: Run, report: HealthReport) -> None:
    """How often options were trained, and scores under the batch norm protocols."""
    if not report.counts.passes:
        return
    rows = report.by_name()
    options = Table("option", "trained %", "least", "most", "gradient %", box=box.SIMPLE_HEAD)
    for name, row in list(rows.items())[:MOST]:
        trained = [100 * share for share in row["trained"]]
        numbers = [f"{value:.2f}" for value in (fmean(trained), min(trained), max(trained))]
        gradient = f"{100 * sum(row['gradient']):.2f}" if row["gradient"] else ""
        options.add_row(name, *numbers, gradient)
    run.say()
    run.say(
        f"how often options were trained, of {report.counts.passes:,} passes: mean over the "
        "decisions, least and most; their share of the gradient"
    )
    run.screen.console.print(options)
    if any(report.scores.values()):
        scores = Table("round/epoch", *(f"{name} %" for name in PROTOCOLS), box=box.SIMPLE_HEAD)
        for key, found in list(report.scores.items())[-MOST:]:
            if found:
                scores.add_row(key, *(f"{100 * fmean(found[name]):.2f}" for name in PROTOCOLS))
        count = len(report.architectures)
        run.say(f"mean score of the same {count} random architectures, by batch norm statistics")
        run.screen.console.print(scores)
    run.say(f"of every decision    {run.directory / HEALTH}")
