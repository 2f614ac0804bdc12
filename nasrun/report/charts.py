"""Charts of the page, as plotly takes them; the page's style colours texts and axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nasrun.report.document import Chart
from nasrun.report.run_lines import Curve

COLORS = (
    *("#3d7cc9", "#dd7d2b", "#2f9e6e", "#9467c4", "#cf4f4a", "#2aa0ad", "#a5764a", "#c2609b"),
    *("#8a8f98", "#95932f"),
)
"""Colours of traces, in turn; they can be told apart on white and on black."""

DASHES = ("solid", "dash", "dot", "dashdot")

MAX_CURVE_POINTS = 1000
"""Points of a curve in a chart; of longer ones every n-th is taken, and the last."""


def plain(text: str) -> str:
    """Return ``text`` so that plotly, which reads a few tags, shows it as it is."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def short(values: Sequence[float], digits: int = 5) -> list[float]:
    """Round values to significant digits, which shortens the page."""
    return [float(f"{value:.{digits}g}") for value in values]


def faded(color: str, share: float) -> str:
    """Return a colour with an opacity."""
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{share:g})"


def axis(title: str, **settings: Any) -> dict[str, Any]:
    """Return an axis with its title."""
    return {"title": {"text": plain(title)}, **settings}


@dataclass(frozen=True)
class Line:
    """A curve of a chart.

    low, high: its interval; empty: it has none. look: joined points, points alone, or steps.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    look: Literal["line", "points", "steps"] = "line"


@dataclass(frozen=True)
class Plot:
    """One of several plots side by side, with their horizontal axes in ``x``."""

    y: str
    lines: Sequence[Line]


def thinned(curve: Curve, factor: float = 1.0) -> tuple[list[float], list[float]]:
    """Return steps and values × factor of a curve, at most ``MAX_CURVE_POINTS`` of them."""
    step = -(-len(curve.steps) // MAX_CURVE_POINTS) or 1
    at = list(range(0, len(curve.steps), step))
    if at and at[-1] != len(curve.steps) - 1:
        at.append(len(curve.steps) - 1)
    return [curve.steps[i] for i in at], short([factor * curve.values[i] for i in at])


def mode_of(line: Line) -> str:
    """Return how plotly shows a curve: long ones have no mark at each point."""
    if line.look == "points":
        return "markers"
    return "lines+markers" if len(line.x) <= 40 and line.look == "line" else "lines"


def log_axis(values: Sequence[float]) -> dict[str, Any]:
    """Return a logarithmic axis: marked at 1, 2, 5, 10 where it spans less than three decades."""
    known = [value for value in values if value > 0]
    wide = not known or max(known) > 1000 * min(known)
    return {"type": "log", "dtick": 1 if wide else "D2"}


def line_chart(
    plots: Sequence[Plot], x: str, caption: str, *, logarithmic: bool = False, height: int = 320
) -> Chart:
    """Make a chart of curves, in one plot or in several side by side."""
    traces: list[dict[str, Any]] = []
    layout: dict[str, Any] = {"hovermode": "closest"}
    names = list(dict.fromkeys(line.name for plot in plots for line in plot.lines))
    shown: set[str] = set()
    gap = 0.11
    width = (1 - gap * (len(plots) - 1)) / len(plots)
    for place, plot in enumerate(plots):
        suffix = "" if place == 0 else str(place + 1)
        begin = place * (width + gap)
        domain = [begin, begin + width]
        layout[f"xaxis{suffix}"] = axis(x, domain=domain, anchor=f"y{suffix}")
        layout[f"yaxis{suffix}"] = axis(plot.y, anchor=f"x{suffix}")
        if logarithmic:
            layout[f"xaxis{suffix}"] |= log_axis([at for line in plot.lines for at in line.x])
            layout[f"yaxis{suffix}"] |= log_axis([at for line in plot.lines for at in line.y])
        for line in plot.lines:
            index = names.index(line.name)
            color = COLORS[index % len(COLORS)]
            where = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}", "legendgroup": str(index)}
            if line.low:
                traces.append(
                    {
                        "x": [*line.x, *reversed(line.x)],
                        "y": [*short(line.high), *reversed(short(line.low))],
                        "fill": "toself",
                        "fillcolor": faded(color, 0.15),
                        "line": {"width": 0},
                        "mode": "lines",
                        "hoverinfo": "skip",
                        "showlegend": False,
                        **where,
                    }
                )
            traces.append(
                {
                    "x": list(line.x),
                    "y": short(line.y),
                    "name": plain(line.name),
                    "mode": mode_of(line),
                    "line": {
                        "color": color,
                        "width": 1.8,
                        "dash": DASHES[index // len(COLORS) % len(DASHES)],
                        "shape": "hv" if line.look == "steps" else "linear",
                    },
                    "marker": {
                        "size": 5,
                        "color": color,
                        "opacity": 0.5 if line.look == "points" else 1,
                    },
                    "showlegend": len(names) > 1 and line.name not in shown,
                    **where,
                }
            )
            shown.add(line.name)
    return Chart(traces, layout, caption, height)


@dataclass(frozen=True)
class Dots:
    """Points of a scatter chart, [n] each.

    hover: text beside each, with line ends. commands: the end of the command of each point, or
    empty. color: a number of each; label: of the colour.
    style: further settings of plotly.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    hover: Sequence[str] = ()
    commands: Sequence[str] = ()
    color: Sequence[float] = ()
    label: str = ""
    marker: Mapping[str, Any] | None = None
    style: Mapping[str, Any] | None = None


def scatter_chart(
    groups: Sequence[Dots],
    x: str,
    y: str,
    caption: str,
    *,
    command: str = "",
    layout: Mapping[str, Any] | None = None,
    height: int = 400,
) -> Chart:
    """Make a chart of points; command: the beginning of the command that a click shows."""
    traces = []
    for index, dots in enumerate(groups):
        many = len(dots.x) > 300
        marker: dict[str, Any] = {
            "color": COLORS[index % len(COLORS)],
            "size": 5 if many else 7,
            "opacity": 0.6 if many else 0.85,
        }
        if dots.color:
            title = {"text": plain(dots.label), "side": "right"}
            marker |= {
                "color": short(dots.color),
                "colorscale": "Viridis",
                "showscale": True,
                "colorbar": {"title": title, "thickness": 12},
            }
        trace: dict[str, Any] = {
            "x": short(dots.x, 6),
            "y": short(dots.y, 6),
            "name": plain(dots.name),
            "mode": "markers",
            "marker": marker | dict(dots.marker or {}),
            "showlegend": len(groups) > 1,
        }
        if dots.hover:
            trace["text"] = [plain(words).replace("\n", "<br>") for words in dots.hover]
            trace["hovertemplate"] = "%{text}<extra></extra>"
        if dots.commands:
            trace["customdata"] = list(dots.commands)
        traces.append(trace | dict(dots.style or {}))
    axes = {"xaxis": axis(x), "yaxis": axis(y), "hovermode": "closest"}
    return Chart(traces, axes | dict(layout or {}), caption, height, command=command)
