"""Show an architecture: its graph in words, the cost of each layer, a picture (out=FILE).

With ``--list`` it lists the published architectures that are known by name.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nasrun.architectures.published import all_published
from nasrun.cli import arguments
from nasrun.cli.arguments import CommandLine
from nasrun.cli.find_architecture import OWN_SETTINGS, Found, Request, exists, find
from nasrun.errors import UserError, nearest, shortened
from nasrun.run.files import at_home, printable, write_bytes

if TYPE_CHECKING:
    from rich.console import Console

    from nasrun.search_space.base import Scale
    from nasrun.search_space.graph import Graph

USAGE = "RUN|FILE|NAME|ARCHITECTURE [KEY=VALUE]"
SWITCHES = ("--list",)

SETTING = re.compile(r"[+~]*[\w@/.]+=")


def run(line: CommandLine) -> int:
    """Print the architecture, and write its picture if ``out`` is given."""
    from rich.console import Console

    if line.has(SWITCHES):
        for text in list_of_published():
            sys.stdout.write(f"{text}\n")
        return 0
    request = read_request(line)
    scale = read_scale(request.own.get("scale"))
    out = read_out(request.own.get("out"))
    found = find(request)
    panels = found.space.graphs(found.architecture, found.problem, scale)
    if out is not None and not panels:
        raise UserError(f"out={out}: {found.space.name} does not tell its graphs")
    say(found, panels, scale, Console(highlight=False, soft_wrap=False))
    if out is not None:
        write_picture(panels, out)
        Console(highlight=False).print(f"\npicture in {out}", markup=False, soft_wrap=True)
    return 0


def list_of_published() -> list[str]:
    """Return the lines of the list of published architectures, in at most 80 columns."""
    rows = [("name", "pixels", "params", "macs", "published", "search space")]
    for one in all_published():
        for index, network in enumerate(one.networks):
            counts = f"{network.params / 1e6:.2f} M", f"{network.macs / 1e6:.0f} M"
            name, space = (one.name, one.space) if index == 0 else ("", "")
            said = f"{network.said} *" if network.differs else network.said
            rows.append((name, str(max(network.shape[1:])), *counts, said, space))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            f"{cell:>{width}}" if place in (1, 2, 3) else f"{cell:{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [
        *lines,
        "",
        "* counted in another way; the file of each name says how, and its source",
        "nasrun show NAME                                  its cells, layers and picture",
        "nasrun retrain architecture=NAME dataset=cifar10  trains it from scratch",
    ]


def read_request(line: CommandLine) -> Request:
    """Sort the words; raises UserError unless exactly one of them is no setting."""
    for word in line.switches:
        name = word.partition("=")[0]
        if name.startswith("-") and name not in arguments.CONFIG_DIR:
            raise UserError(f"show takes no switch {name}")
    settings = [word for word in line.overrides if is_setting(word)]
    words = [word for word in line.overrides if not is_setting(word)]
    if len(words) != 1:
        usage = (
            "nasrun show RUN, or FILE, or NAME (see --list), or 'ARCHITECTURE' [out=FILE] "
            "[search_space=NAME]"
        )
        also = f", not {len(words)}: {' '.join(map(shortened, words))}" if words else ""
        raise UserError(f"show takes one architecture{also}; {usage}")
    own = dict(word.partition("=")[::2] for word in settings)
    own = {key: value for key, value in own.items() if key in OWN_SETTINGS}
    overrides = tuple(word for word in settings if word.partition("=")[0] not in OWN_SETTINGS)
    return Request(words[0], own, overrides, line.value(arguments.CONFIG_DIR))


def is_setting(word: str) -> bool:
    """Tell a setting from a path or a genotype that contains an equals sign."""
    return bool(SETTING.match(word)) and "Genotype(" not in word and not exists(at_home(word))


def read_scale(text: str | None) -> Scale:
    """Return the scale; raises UserError if there is none of this name."""
    if text in (None, "final"):
        return "final"
    if text == "search":
        return "search"
    raise UserError(f"scale={text}: must be final or search")


def read_out(text: str | None) -> Path | None:
    """Return the file of the picture; raises UserError if its suffix names no kind of picture."""
    if text is None:
        return None
    from nasrun.report.figures_architecture import FORMATS

    path = at_home(text)
    kind = path.suffix.removeprefix(".").lower()
    if kind not in FORMATS:
        raise UserError(
            f"out={text}: the name must end in {', '.join(f'.{known}' for known in FORMATS)}"
            f"{nearest(kind, FORMATS)}"
        )
    if not path.parent.is_dir():
        raise UserError(f"out={text}: there is no folder {path.parent}")
    return path


def write_picture(panels: Mapping[str, Graph], out: Path) -> None:
    """Write the graphs in the form that the suffix of ``out`` names."""
    from nasrun.report.figures_architecture import FORMATS

    data = FORMATS[out.suffix.removeprefix(".").lower()](panels)
    try:
        write_bytes(out, data)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from error


def say(found: Found, panels: Mapping[str, Graph], scale: Scale, console: Console) -> None:
    """Print the architecture: as its space writes it, as a graph in words, and by its layers."""
    from nasrun.report.graph_text import lines_of
    from nasrun.report.layer_table import layer_rows, layer_table

    space, architecture, problem = found.space, found.architecture, found.problem

    def put(text: str = "", style: str | None = None) -> None:
        console.print(printable(text), markup=False, style=style)

    put(space.write(architecture), "bold")
    images = f"{problem.channels}×{problem.size.words}"
    put(f"{space.name} at the {scale} scale, for {images} images of {problem.classes:,} classes")
    put(f"({found.dataset})")
    for name, graph in panels.items():
        put()
        put(name, "bold")
        for text in lines_of(graph):
            put(f"  {text}")
    if not panels:
        put()
        for text in space.describe(architecture):
            put(text)
    try:
        layers = space.layers(architecture, problem, scale)
    except UserError as error:
        cost = space.cost(architecture, problem, scale)
        put(f"\n{cost.params:,} parameters, {cost.macs:,} multiply-adds; {error}")
        return
    console.print()
    console.print(layer_table(layer_rows(layers)))
