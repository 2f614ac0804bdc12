"""The health report on the screen: a few lines; its file holds all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from nasrun.run.commands import shown
from nasrun.run.run import Run


@dataclass(frozen=True)
class HealthSummary:
    """The numbers of a supernet's health that are shown.

    passes: forward and backward passes that were counted.
    options: by name of the option: ``trained``, the shares of passes that trained it, one for each
    decision that has the option; ``gradient``, its shares of the gradient, as far as known.
    scores: by round and epoch, then by batch norm protocol: scores of fixed random architectures.
    architectures: number of these architectures.
    correlations: by round and epoch: of the losses of random paths with their shares of operations
    without parameters; None: it does not exist. paths: number of these paths.
    """

    passes: int
    options: Mapping[str, Mapping[str, Sequence[float]]]
    scores: Mapping[str, Mapping[str, Sequence[float]]]
    architectures: int
    file: Path
    correlations: Mapping[str, float | None]
    paths: int


def say_health(run: Run, health: HealthSummary) -> None:
    """Say in a few lines how often options were trained, and the scores by protocol."""
    if not health.passes:
        return
    trained = {name: fmean(row["trained"]) for name, row in health.options.items()}
    run.say()
    run.say(
        f"how often options were trained, of {health.passes:,} passes, in {shown(health.file)}:"
    )
    if trained:
        least, most = (choose(trained, key=trained.__getitem__) for choose in (min, max))
        run.say(
            f"  least {least} {100 * trained[least]:.1f} %, most {most} {100 * trained[most]:.1f} %"
        )
    known = [found for found in health.correlations.values() if found is not None]
    if known:
        run.say(
            f"correlation of the loss of {health.paths} random paths with their share of "
            f"operations without parameters: {known[-1]:.2f} (below 0: the supernet is young)"
        )
    measured = {key: found for key, found in health.scores.items() if found}
    if not measured:
        return
    run.say(
        f"mean score of the same {health.architectures} random architectures, by batch norm "
        "statistics:"
    )
    ends = [*measured.items()][:: max(len(measured) - 1, 1)]  # the first and the last
    for key, found in ends:
        scores = ", ".join(f"{name} {100 * fmean(each):.1f} %" for name, each in found.items())
        run.say(f"  round/epoch {key}: {scores}")
