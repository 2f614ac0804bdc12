"""The course of a run: training of the supernet, search, and training of the winner."""

from __future__ import annotations

from nasrun.report.charts import Line, Plot, line_chart, thinned
from nasrun.report.document import Block, Section, Text
from nasrun.report.run_lines import Curve, best_so_far, joined
from nasrun.report.sections.view import RunView

STAGES = (
    ("supernet", "Training of the supernet", "step"),
    ("retrain", "Training of the final network", "step"),
)
"""Stages with losses and accuracies: name, title, horizontal axis."""

ACCURACIES = {
    "accuracy": "training batches",
    "gates_accuracy": "images of the gates",
    "validation_accuracy": "validation images",
}

LOSSES = {
    "loss": "training batches",
    "gates_loss": "images of the gates",
    "validation_loss": "validation images",
}


def curves(view: RunView) -> Section:
    """Show the curves that have two points at least, and the others in words."""
    blocks: list[Block] = []
    for stage, title, x in STAGES:
        blocks += training(view, stage, title, x)
        if stage == "supernet":
            blocks += search(view)
    return Section("curves", "How it went", blocks)


def training(view: RunView, stage: str, title: str, x: str) -> list[Block]:
    """Return the chart of accuracies and losses of a stage."""
    found = {name: joined(view.curves, stage, name) for name in (*ACCURACIES, *LOSSES)}
    found["validation_accuracy"] = joined(view.curves, f"{stage}/validation", "accuracy")
    found = {name: curve for name, curve in found.items() if curve.steps}
    if not found:
        return []
    if max(len(curve.steps) for curve in found.values()) < 2:
        return [Text(f"{title}: {last_values(found)} at its only logged step.", "small")]
    plots = []
    for names, y, factor in ((ACCURACIES, "accuracy (%)", 100.0), (LOSSES, "loss", 1.0)):
        lines = [
            Line(words, *thinned(found[name], factor))
            for name, words in names.items()
            if name in found
        ]
        if lines:
            plots.append(Plot(y, lines))
    return [line_chart(plots, x, f"{title}: {last_values(found)} at the end.")]


def last_values(found: dict[str, Curve]) -> str:
    """Return the last value of each curve, in words."""
    parts = []
    for name, curve in found.items():
        value = curve.values[-1]
        shown = f"{100 * value:.2f} %" if name in ACCURACIES else f"{value:.4g}"
        parts.append(f"{name.replace('_', ' ')} {shown}")
    return ", ".join(parts)


def search(view: RunView) -> list[Block]:
    """Return the chart of the best score so far, and of the scores of all trials."""
    if view.run.task != "search" or len(view.searched) < 2:
        return []
    points = list(best_so_far(view.trials))
    scores = Curve([count for count, _ in points], [trial.score for trial in view.searched])
    best = Curve([count for count, _ in points], [value for _, value in points])
    lines = [
        Line("each architecture", *thinned(scores, 100), look="points"),
        Line("best so far", *thinned(best, 100), look="steps"),
    ]
    several = "Scores of different rounds come from different weights." if rounds(view) > 1 else ""
    reached = next(count for count, value in points if value == points[-1][1])
    return [
        line_chart(
            [Plot("score (%)", lines)],
            "architectures scored",
            f"Search: the best score, {100 * points[-1][1]:.2f} %, was first reached after "
            f"{reached:,} of {len(points):,} evaluations. {several}".rstrip(),
        )
    ]


def rounds(view: RunView) -> int:
    """Return in how many rounds the search has scored."""
    return len({trial.group for trial in view.searched})
