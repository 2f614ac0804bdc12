"""The paper-like style of all pictures, and their files: equal inputs give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasrun.run.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN_INCHES = 3.5
"""Width of one column of a two-column paper whose captions have 8 points."""

STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "svg.hashsalt": "nasrun",  # otherwise the ids in the file are random
    "svg.fonttype": "path",
    "text.parse_math": False,  # a $ in a name is no formula
}

LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
"""Line styles of curves, in turn."""


@contextmanager
def house_style() -> Iterator[None]:
    """Set matplotlib's defaults and our style inside; restore the user's settings afterwards."""
    import matplotlib  # slow to import

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; width, height: in inches.

    Does not use pyplot, which would choose a screen and keep every figure in memory.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def column_figure(height: float) -> tuple[Figure, Axes]:
    """A figure of one column's width with one plot; height: in inches."""
    figure = new_figure(COLUMN_INCHES, height)
    return figure, figure.add_subplot()


def png_of_figure(figure: Figure, dots_per_inch: float) -> bytes:
    """Return a figure as a PNG file."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=dots_per_inch)
    return picture.getvalue()


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Write ``path`` (without suffix) as .png and .svg; returns the files written."""
    written = []
    for suffix, metadata in (("png", {}), ("svg", {"Date": None})):
        file = path.with_name(f"{path.name}.{suffix}")
        file.parent.mkdir(parents=True, exist_ok=True)
        picture = io.BytesIO()  # matplotlib would follow a link that has the name of the file
        figure.savefig(picture, format=suffix, dpi=300, metadata=metadata)
        write_bytes(file, picture.getvalue())
        written.append(file)
    return written
