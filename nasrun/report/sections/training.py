"""The health of the supernet, and the data: what the run has measured of both."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from nasrun.errors import plural
from nasrun.metrics.share import COLLAPSE_SHARE
from nasrun.report.document import Block, Facts, Grid, Points, Section, Text
from nasrun.report.run_lines import joined
from nasrun.report.sections.view import RunView
from nasrun.report.words import number, percent
from nasrun.run.layout import HEALTH

MAX_ROWS = 60
"""Rows of options in the table of health, and of classes in the table of images."""

OFF_ON = {"off", "on"}


def health(view: RunView) -> Section:
    """Show how often options were trained, and the scores by batch norm statistics."""
    found = view.run.read_object(HEALTH) if view.run.has(HEALTH) else {}
    blocks: list[Block] = []
    passes = number(found.get("passes"))
    free = view.value("parameter_free")
    if free is not None:
        course = joined(view.curves, "score", "parameter_free").values
        words = f"{percent(free, 0)} of the winner's operations have no parameters"
        if len(course) > 1:
            words += f" ({percent(course[0], 0)} in the first architecture that was scored)"
        blocks.append(Text(f"{words}.", "warning" if free > COLLAPSE_SHARE else "plain"))
    rows = option_rows(found.get("decisions"), passes or 0)
    if passes and rows:
        blocks.append(
            Grid(
                ["option", "trained, mean %", "least %", "most %", "share of the gradient %"],
                rows[:MAX_ROWS],
                f"how often options were trained, of {passes:,.0f} passes: mean over the "
                "decisions that have the option, least and most",
            )
        )
    if rows := score_rows(found.get("scores")):
        architectures = found.get("architectures")
        count = len(architectures) if isinstance(architectures, list) else 0
        blocks.append(
            Grid(
                ["round / epoch", "inherited %", "recalibrated %", "batch %"],
                rows[-MAX_ROWS:],
                f"mean score of the same {plural(count, 'random architecture')}, by the statistics "
                "of batch norm",
            )
        )
    return Section("health", "Health of the supernet", blocks)


def option_rows(decisions: Any, passes: float) -> list[list[str]]:
    """Return a row for each kind of option, from the counts of each decision."""
    trained: dict[str, list[float]] = {}
    gradient: dict[str, list[float]] = {}
    for decision, options in (decisions if isinstance(decisions, Mapping) else {}).items():
        kind = str(decision).rpartition("/")[2]
        for name, entry in (options if isinstance(options, Mapping) else {}).items():
            count = number(entry.get("trained")) if isinstance(entry, Mapping) else None
            if count is None or not passes:
                continue
            if set(options) == OFF_ON:
                if name == "off":
                    continue
                label = kind
            else:
                label = f"{kind}/{name}"
            trained.setdefault(label, []).append(100 * count / passes)
            share = number(entry.get("gradient"))
            if share is not None:
                gradient.setdefault(label, []).append(100 * share)
    return [
        [
            label,
            *(f"{value:.2f}" for value in (fmean(shares), min(shares), max(shares))),
            f"{sum(gradient[label]):.2f}" if label in gradient else "–",
        ]
        for label, shares in trained.items()
    ]


def score_rows(scores: Any) -> list[list[str]]:
    """Return a row for each time at which random architectures were scored."""
    rows = []
    for key, found in (scores if isinstance(scores, Mapping) else {}).items():
        cells = []
        for protocol in ("inherited", "recalibrated", "batch"):
            values = found.get(protocol) if isinstance(found, Mapping) else None
            plain = [number(v) for v in values] if isinstance(values, list) else []
            known = [value for value in plain if value is not None]
            cells.append(f"{100 * fmean(known):.2f}" if known else "–")
        if any(cell != "–" for cell in cells):
            rows.append([str(key)[:40], *cells])
    return rows


def data(view: RunView) -> Section:
    """Show what the folders of images hold, as the run has found them."""
    found = view.data
    classes, images = found.get("classes"), found.get("images")
    if not isinstance(classes, list) or not isinstance(images, Mapping):
        return Section("data", "The images", [])
    blocks: list[Block] = []
    sources = found.get("splits")
    facts = [("folder", str(found.get("root", "")))]
    if isinstance(sources, Mapping):
        facts += [(str(split), str(source)) for split, source in sources.items()]
    counts = {
        str(split): [value if type(value) is int else 0 for value in row]
        for split, row in images.items()
        if isinstance(row, list)
    }

    def row(name: str, of: slice) -> list[str]:
        return [name, *(f"{sum(values[of]):,}" for values in counts.values())]

    shown = classes[:MAX_ROWS]
    rows = [row(str(name)[:100], slice(k, k + 1)) for k, name in enumerate(shown)]
    if len(classes) > len(shown):
        rows.append(row(f"{len(classes) - len(shown):,} more classes", slice(len(shown), None)))
    rows.append(row("all classes", slice(None)))
    left = left_out(found.get("left_out"))
    blocks += [Facts(facts), Grid(["class", *counts], rows, "images by class and split")]
    if left:
        blocks.append(Text(f"Left out: {'; '.join(left)}.", "small"))
    notes = found.get("notes")
    if isinstance(notes, list) and notes:
        blocks.append(Points([str(note) for note in notes[:20]]))
    return Section("data", "The images", blocks)


def left_out(found: Any) -> list[str]:
    """Say what in the folders was not used."""
    if not isinstance(found, Mapping):
        return []
    parts = []
    for key, words in (("suffixes", "files by suffix"), ("folders", "folders")):
        names = found.get(key)
        if isinstance(names, Mapping) and names:
            listed = ", ".join(f"{name} ({count})" for name, count in list(names.items())[:10])
            parts.append(f"{words}: {listed}")
    for key, words in (
        ("beside", "files beside the folders of classes"),
        ("links", "links to folders"),
        ("copies", "links to files that are here already"),
        ("odd", "that are no files (pipes, devices, broken links)"),
    ):
        count = number(found.get(key))
        if count:
            parts.append(f"{count:,.0f} {words}")
    return parts
