"""A comparison of search algorithms on known scores: regret, and tests against the control."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from nasrun.report.charts import Line, Plot, line_chart
from nasrun.report.document import Block, Grid, Section, Text
from nasrun.report.run_lines import numbers, read_rows
from nasrun.report.sections.view import RunView
from nasrun.report.words import estimate, in_points, number, percent
from nasrun.run.layout import COMPARISON, COMPARISON_CURVES, REGRET_BY_TAU

MAX_CURVE_POINTS = 60
"""Points of each regret curve, evenly spread on the logarithmic axis."""


def comparison(view: RunView) -> Section:
    """Show the regret of each algorithm by evaluation, and at the end."""
    blocks: list[Block] = []
    rows = view.run.comparison
    if rows:
        control = control_of(view)
        best = number(settings(view).get("best"))
        if lines := regret_lines(view):
            blocks.append(
                line_chart(
                    [Plot("mean regret (points)", lines)],
                    "evaluations",
                    "Regret: the true accuracy of the best-scored architecture so far, in points "
                    f"below {reference(view)}; mean over seeds, with its interval.",
                    logarithmic=True,
                    height=380,
                )
            )
        blocks.append(
            Grid(
                ["algorithm", "seeds", "regret, points", "wins", "p"],
                [
                    [
                        row.algorithm + (" (control)" if row.algorithm == control else ""),
                        f"{row.seeds:,}",
                        estimate(in_points(row.regret)),
                        "" if row.wins is None else f"{100 * row.wins:.0f} %",
                        "" if row.p is None else f"{row.p:.2g}",
                    ]
                    for row in rows
                ],
                "at the end. wins: seeds that end below the control, ties half; p: permutation "
                "test of the mean difference, paired by seed, Holm's correction"
                + (f". Best: {percent(best)}" if best is not None else ""),
            )
        )
    return Section("comparison", "The algorithms compared", [*blocks, *by_tau(view)])


def settings(view: RunView) -> dict[str, Any]:
    """Return the content of compare.json."""
    return view.run.read_object(COMPARISON) if view.run.has(COMPARISON) else {}


def control_of(view: RunView) -> str:
    """Return the name of the control; empty if it is not known."""
    return str(settings(view).get("control", ""))


def reference(view: RunView) -> str:
    """Say what regret is measured to."""
    of_all = settings(view).get("best_of_all") is True
    return "the best there is" if of_all else "the best that any search found"


def regret_lines(view: RunView) -> list[Line]:
    """Return the curve of each algorithm, of values above 0, which a logarithm needs."""
    found: dict[str, list[list[float]]] = {}
    for row in read_rows(view.run.path / COMPARISON_CURVES):
        with suppress(ValueError, LookupError):
            values = numbers(row, "evaluations", "regret", "low", "high")
            found.setdefault(row["algorithm"][:80], []).append(values)
    lines = []
    for name, rows in found.items():
        chosen = [row for row in spread(rows) if row[1] > 0]
        at, *curves = (list(column) for column in zip(*chosen, strict=True)) if chosen else [[]]
        if len(at) < 2:
            continue
        value, low, high = ([100 * item for item in curve] for curve in curves)
        least = min(value) / 10
        lines.append(Line(name, at, value, [max(item, least) for item in low], high))
    return lines


def spread(rows: list[list[float]]) -> list[list[float]]:
    """Return at most ``MAX_CURVE_POINTS`` rows, evenly spread by the logarithm of their place."""
    count = len(rows)
    ratio = count ** (1 / (MAX_CURVE_POINTS - 1))
    places = {min(round(ratio**index), count) - 1 for index in range(MAX_CURVE_POINTS)}
    return [rows[place] for place in sorted(places)] if count > MAX_CURVE_POINTS else rows


def by_tau(view: RunView) -> list[Block]:
    """Return the chart and the table of regret by the tau of the scores, if that was asked."""
    found: dict[str, list[list[float]]] = {}
    tests: dict[tuple[str, float], str] = {}
    for row in read_rows(view.run.path / REGRET_BY_TAU):
        with suppress(ValueError, LookupError):
            name, values = row["algorithm"][:80], numbers(row, "tau", "regret", "low", "high")
            found.setdefault(name, []).append(values)
            tests[name, values[0]] = row["p"][:10]
    if not found:
        return []
    lines, rows = [], []
    for name, points in found.items():
        tau, value, low, high = (list(column) for column in zip(*points, strict=True))
        regret, least, most = ([100 * x for x in column] for column in (value, low, high))
        lines.append(Line(name, tau, regret, least, most))
        rows += [
            [
                name,
                f"{t:g}",
                f"{100 * v:.3f} ({100 * a:.3f} to {100 * b:.3f})",
                p_of(tests[name, t]),
            ]
            for t, v, a, b in points
        ]
    plot = Plot("mean regret (points)", lines)
    caption = "Regret at the end, by Kendall's τ of the scores with the truth."
    return [
        line_chart([plot], "τ of the scores", caption, height=380),
        Grid(["algorithm", "τ of the scores", "regret, points", "p"], rows),
        Text("p: against the control at the same τ, Holm's correction.", "small"),
    ]


def p_of(text: str) -> str:
    """Write a p of a table; empty for the control, which has none."""
    try:
        return f"{float(text):.2g}"
    except ValueError:
        return ""
