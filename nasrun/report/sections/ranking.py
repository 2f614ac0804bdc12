"""A ranking: score against truth, and its measures beside the baseline of size."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nasrun.metrics.bootstrap import Estimate
from nasrun.report.charts import Dots, Line, Plot, line_chart, scatter_chart
from nasrun.report.document import Block, Grid, Section, Text
from nasrun.report.run_files import Points
from nasrun.report.run_lines import joined, read_rows
from nasrun.report.run_ranking import Ranking
from nasrun.report.sections.view import RunView
from nasrun.report.units import UNITS
from nasrun.report.words import estimate
from nasrun.run.layout import RANK_PROGRESS, RANKING_TABLE

MAX_POINTS = 3000
"""Points of the chart; of more architectures an even sample by true accuracy is shown."""

MEASURES = (
    ("kendall", "Kendall's τ-b of scores and truth"),
    ("ceiling_kendall", "τ-b of one training's truth with another's (ceiling)"),
    ("params_alone", "τ-b of parameters alone"),
    ("macs_alone", "τ-b of multiply-adds alone"),
    ("above_params", "τ-b above that of parameters"),
    ("above_macs", "τ-b above that of multiply-adds"),
    ("partial_params", "τ given parameters"),
    ("partial_macs", "τ given multiply-adds"),
    ("within_params", "τ-b within thirds by parameters"),
    ("within_macs", "τ-b within thirds by multiply-adds"),
    ("spearman", "Spearman's ρ"),
    ("pairwise_accuracy", "share of pairs in the right order"),
)
"""Measures of the table, in order: name, words."""


def ranking(view: RunView) -> Section:
    """Show how truly the supernet ranks."""
    blocks: list[Block] = []
    found = view.run.ranking
    if found is not None:
        blocks += scatter(view, found)
    measures = view.run.measures
    rows = [
        [words, *cells(measures[name])]
        for name, words in MEASURES
        if name in measures and math.isfinite(measures[name].value)
    ]
    if rows:
        interval = f"{100 * found.confidence:g} % interval" if found is not None else "interval"
        blocks.append(Grid(["measure", "value", interval], rows, "the last ranking"))
    blocks += biases(view)
    points = view.run.agreement("kendall")
    if len(points) > 1:
        blocks.append(by_epoch(points, "τ-b by epoch of the supernet's training."))
    progress = joined(view.curves, RANK_PROGRESS, "kendall")
    if len(progress.steps) > 1:
        line = Line("fixed sample", progress.steps, progress.values)
        caption = "τ-b of a small fixed sample while the supernet trained."
        blocks.append(line_chart([Plot("Kendall's τ-b", [line])], "step", caption))
    return Section("ranking", "How truly it ranks", blocks)


def biases(view: RunView) -> list[Block]:
    """Return the table of biases to size; empty if the run holds none."""
    rows = [
        [
            UNITS[name][0] if name in UNITS else name,
            *cells(found.kendall),
            "–" if found.unbiased is None else f"{found.unbiased:.3f}",
            by_third(found.thirds, "{:+.1f}"),
            by_third(found.steps, "{:.1%}"),
            by_third(found.losses, "{:.3f}"),
        ]
        for name, found in view.run.size_biases.items()
    ]
    columns = [
        *("size", "bias", "interval", "if unbiased"),
        *("rank error by third, %", "steps by third", "training loss by third"),
    ]
    caption = (
        "Bias of the last ranking: τ-b of size and rank error, below 0 if small networks are "
        "overrated, beside that of scores as noisy without a bias. Thirds from small to large; a "
        "rank error above 0 is overrated."
    )
    return [Grid(columns, rows, caption)] if rows else []


def by_third(values: Sequence[float | None], form: str) -> str:
    """Return a value of each tercile in one cell; a dash where it is not known."""
    words = ["–" if value is None else form.format(value) for value in values]
    return " / ".join(words) if words else "–"


def cells(found: Estimate) -> list[str]:
    """Return the cells of a value and its interval."""
    interval = f"{found.low:.3f} to {found.high:.3f}" if math.isfinite(found.low) else "–"
    return [f"{found.value:.3f}", interval]


def by_epoch(points: Points, caption: str) -> Block:
    """Return the chart of a measure by epoch, with its interval."""
    known = [(epoch, found) for epoch, found in points if math.isfinite(found.value)]
    bounded = all(math.isfinite(found.low) for _, found in known)
    line = Line(
        "supernet",
        [epoch for epoch, _ in known],
        [found.value for _, found in known],
        [found.low for _, found in known] if bounded else (),
        [found.high for _, found in known] if bounded else (),
    )
    return line_chart([Plot("Kendall's τ-b", [line])], "epoch", caption)


def scatter(view: RunView, found: Ranking) -> list[Block]:
    """Return the chart of scores against truth, coloured by size."""
    names = [row.get("architecture", "")[:200] for row in read_rows(view.run.path / RANKING_TABLE)]
    order = sorted(range(len(found.scores)), key=lambda index: float(found.truth[index]))
    step = -(-len(order) // MAX_POINTS)
    shown = order[::step]
    named = len(names) == len(order)
    dots = Dots(
        "architectures",
        [100 * float(found.scores[index]) for index in shown],
        [100 * float(found.truth[index]) for index in shown],
        [hover(found, index, names[index] if named else "") for index in shown],
        color=[float(found.params[index]) for index in shown],
        label="parameters (M)",
    )
    caption = (
        f"Scores of {len(order):,} architectures against their true accuracies: Kendall's τ-b "
        f"{estimate(found.tau)}. A perfect ranking would rise from left to right without a step "
        "back."
    )
    blocks: list[Block] = [scatter_chart([dots], "score (%)", "true accuracy (%)", caption)]
    if step > 1:
        words = f"{len(shown):,} of {len(order):,} points are shown, evenly by true accuracy."
        blocks.append(Text(words, "small"))
    return blocks


def hover(found: Ranking, index: int, name: str) -> str:
    """Describe an architecture beside its point."""
    score, truth = 100 * found.scores[index], 100 * found.truth[index]
    words = f"score {score:.2f} %, truth {truth:.2f} %\n{found.params[index]:.3f} M parameters"
    return f"{words}\n{name}" if name else words
