"""The health report on the screen: two tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich import box
from rich.table import Table

from nasrun.run.run import Run

MAX_ROWS = 20
"""Upper bound of the rows of a table on the screen; the file has all rows."""


@dataclass(frozen=True)
class HealthSummary:
    """The numbers of a supernet's health that are shown.

    passes: forward and backward passes that were counted.
    options: by name of the option: ``trained``, the shares of passes that trained it, one for each
    decision that has the option; ``gradient``, its shares of the gradient, as far as known.
    scores: by round and epoch, then by batch norm protocol: scores of fixed random architectures.
    architectures: number of these architectures.
    """

    passes: int
    options: Mapping[str, Mapping[str, Sequence[float]]]
    scores: Mapping[str, Mapping[str, Sequence[float]]]
    architectures: int
    file: Path


def say_health(run: Run, health: HealthSummary) -> None:
    """Show how often options were trained, and the scores by batch norm protocol."""
    if not health.passes:
        return
    options = Table("option", "trained %", "least", "most", "gradient %", box=box.SIMPLE_HEAD)
    for name, row in list(health.options.items())[:MAX_ROWS]:
        trained = [100 * share for share in row["trained"]]
        numbers = [f"{value:.2f}" for value in (fmean(trained), min(trained), max(trained))]
        gradient = f"{100 * sum(row['gradient']):.2f}" if row["gradient"] else ""
        options.add_row(name, *numbers, gradient)
    run.say()
    run.say(
        f"how often options were trained, of {health.passes:,} passes: mean over the "
        "decisions, least and most; their share of the gradient"
    )
    run.screen.console.print(options)
    measured = {key: found for key, found in health.scores.items() if found}
    if measured:
        protocols = list(next(iter(measured.values())))
        scores = Table("round/epoch", *(f"{name} %" for name in protocols), box=box.SIMPLE_HEAD)
        for key, found in list(measured.items())[-MAX_ROWS:]:
            scores.add_row(key, *(f"{100 * fmean(found[name]):.2f}" for name in protocols))
        run.say(
            f"mean score of the same {health.architectures} random architectures, by batch norm "
            "statistics"
        )
        run.screen.console.print(scores)
    run.say(f"of every decision    {health.file}")
