"""Show an architecture: its graph in words, the cost of each layer, a picture (out=FILE)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasrun.cli import arguments
from nasrun.cli.arguments import CommandLine
from nasrun.errors import UserError, nearest, shortened
from nasrun.run.files import at_home, printable, read_json_or_text, write_bytes
from nasrun.run.layout import ARCHITECTURE, FRONT, RECORD

if TYPE_CHECKING:
    from rich.console import Console

    from nasrun.search_space.base import Scale, SearchSpace
    from nasrun.search_space.graph import Graph
    from nasrun.values import Architecture, Problem

USAGE = "RUN|FILE|ARCHITECTURE [KEY=VALUE]"
SWITCHES = ()

OWN_SETTINGS = ("out", "pick", "scale")
"""Settings of this command: file of the picture, place in the front of a run, scale."""

SETTING = re.compile(r"[+~]*[\w@/.]+=")
SCALES: tuple[Scale, ...] = ("final", "search")

Configuration = Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """The words of the command line, sorted.

    what: a run, a file, or an architecture as its space writes it.
    own: values of ``OWN_SETTINGS``. overrides: all other settings.
    """

    what: str
    own: Mapping[str, str]
    overrides: tuple[str, ...]
    config_dir: str | None

    def chooses(self, group: str) -> bool:
        """Tell whether a setting chooses an option of the group, or a recipe does."""
        keys = {override.partition("=")[0].lstrip("+~") for override in self.overrides}
        return bool({group, "experiment"} & keys)


@dataclass(frozen=True)
class Found:
    """An architecture, its space, and the shape of the images."""

    architecture: Architecture
    space: SearchSpace
    problem: Problem
    dataset: str


def run(line: CommandLine) -> int:
    """Print the architecture, and write its picture if ``out`` is given."""
    from rich.console import Console

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


def read_request(line: CommandLine) -> Request:
    """Sort the words; raises UserError unless exactly one of them is no setting."""
    config_dir = line.value(arguments.CONFIG_DIR)
    unused = [word for word in line.switches if word not in (*arguments.CONFIG_DIR, config_dir)]
    unused = [word for word in unused if not word.startswith(arguments.CONFIG_DIR)]
    if unused:
        raise UserError(f"show takes no switch {unused[0]}")
    settings = [word for word in line.overrides if is_setting(word)]
    words = [word for word in line.overrides if not is_setting(word)]
    if len(words) != 1:
        usage = "nasrun show RUN, or FILE, or 'ARCHITECTURE' [out=FILE] [search_space=NAME]"
        also = f", not {len(words)}: {' '.join(map(shortened, words))}" if words else ""
        raise UserError(f"show takes one architecture{also}; {usage}")
    own = dict(word.partition("=")[::2] for word in settings)
    own = {key: value for key, value in own.items() if key in OWN_SETTINGS}
    overrides = tuple(word for word in settings if word.partition("=")[0] not in OWN_SETTINGS)
    return Request(words[0], own, overrides, config_dir)


def is_setting(word: str) -> bool:
    """Tell a setting from a path or a genotype that contains an equals sign."""
    return bool(SETTING.match(word)) and "Genotype(" not in word and not exists(at_home(word))


def exists(path: Path) -> bool:
    """Tell whether there is something of this name, which may be none that a file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def read_scale(text: str | None) -> Scale:
    """Return the scale; raises UserError if there is none of this name."""
    known = dict.fromkeys(SCALES)
    for scale in known:
        if text in (None, scale):
            return scale
    raise UserError(f"scale={text}: must be {' or '.join(SCALES)}{nearest(str(text), SCALES)}")


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


def find(request: Request) -> Found:
    """Find the architecture and the configuration that it belongs to; raises UserError."""
    path, pick = at_home(request.what), request.own.get("pick")
    if exists(path) and path.is_dir():
        value = of_run(path, pick)
        return built(value, run_configuration(path, request), path / ARCHITECTURE)
    if pick is not None:
        raise UserError(f"pick={pick} is a place in the front of a run, and {path} is no run")
    if exists(path):
        value = read_json_or_text(path.resolve())
        if path.name == ARCHITECTURE and (path.parent / RECORD).is_file():
            return built(value, run_configuration(path.parent, request), path)
        return of_value(value, request, path)
    return of_value(request.what, request, None)


def of_run(directory: Path, pick: str | None) -> Any:
    """Return the winner of a run, or a point of its front, as JSON."""
    from nasrun.report.run_files import RunDirectory

    run = RunDirectory(directory)
    if not run.has(RECORD):
        raise UserError(f"{directory} is no run: it has no {RECORD}")
    if pick is not None:
        if not run.has(FRONT):
            raise UserError(f"pick={pick}: {directory} has no front (search_algo=nsga2 makes one)")
        return run.architecture_at(int(pick) if pick.isdecimal() else pick)
    if not run.has(ARCHITECTURE):
        raise UserError(
            f"{directory} has no {ARCHITECTURE}: a search writes it when it has chosen its "
            f"winner; this is a run of `nasrun {run.task}`"
        )
    return run.read_object(ARCHITECTURE)


def run_configuration(directory: Path, request: Request) -> Configuration:
    """Return the configuration of a run, changed by the settings of the command line."""
    from nasrun.cli.from_run import EarlierRun

    earlier = EarlierRun.read(directory, RECORD, request.config_dir)
    if not request.overrides:
        return earlier.config
    words = earlier.merged(request.overrides, request.config_dir)
    return composed([f"task={earlier.task}", *words], request.config_dir)


def of_value(value: Any, request: Request, path: Path | None) -> Found:
    """Find the space of an architecture that comes without a run."""
    if request.chooses("search_space"):
        return built(value, composed(request.overrides, request.config_dir), path)
    from nasrun.config.groups import groups

    options = groups(request.config_dir)["search_space"]
    named = str(value.get("space")).partition("/")[0] if isinstance(value, dict) else None
    if named is not None and named not in options:
        raise UserError(
            f"{path}: there is no search space {shortened(named, 40)!r}"
            f"{nearest(named, options)}; name its option with search_space=NAME"
        )
    if named is None and "Genotype(" in str(value):
        named = "darts_cell"
    if named is not None:
        words = [f"search_space={named}", *request.overrides]
        return built(value, composed(words, request.config_dir), path)
    return guessed(value, options, request, path)


def guessed(value: Any, options: Sequence[str], request: Request, path: Path | None) -> Found:
    """Find the only space that reads the text; raises UserError if none does, or several do."""
    found: dict[str, Found] = {}
    for option in options:
        configuration = composed([f"search_space={option}", *request.overrides], request.config_dir)
        try:
            found[option] = built(value, configuration, path)
        except UserError:
            continue
    if len(found) == 1:
        return next(iter(found.values()))
    shown = printable(shortened(str(value), 60))
    if found:
        raise UserError(
            f"{shown!r} is an architecture of {' and of '.join(found)}: add "
            f"{' or '.join(f'search_space={option}' for option in found)}"
        )
    near = "" if path is not None else nearest(at_home(request.what).name, beside(request.what))
    raise UserError(
        f"{shown!r} is no run, no file and no architecture of a search space as it is configured"
        f"{near}; with search_space=NAME you learn why"
    )


def beside(word: str) -> list[str]:
    """List the names in the folder in which a path would be."""
    try:
        return [path.name for path in at_home(word).parent.iterdir()]
    except (OSError, ValueError):
        return []


def composed(overrides: Sequence[str], config_dir: str | None) -> Configuration:
    """Compose the configuration of a search; raises UserError over mistakes."""
    from nasrun.config.compose import check_top_level, compose
    from nasrun.config.explain import CONFIGURATION_ERRORS, explain

    try:
        config = compose(overrides, config_dir)
    except CONFIGURATION_ERRORS as error:
        raise explain(error, overrides, config_dir) from error
    check_top_level(config, str(config.get("task")))
    return config


def built(value: Any, configuration: Configuration, path: Path | None) -> Found:
    """Build space and dataset, and read the architecture. path: the file that it comes from."""
    from nasrun.config.build import build
    from nasrun.dataset.base import Dataset
    from nasrun.search_space.base import SearchSpace

    space = build(configuration.get("search_space"), "search_space", (SearchSpace,))
    dataset = build(configuration.get("dataset"), "dataset", (Dataset,))
    if not isinstance(space, SearchSpace) or not isinstance(dataset, Dataset):
        raise UserError(f"{path}: the run's configuration has no search space and dataset")
    try:
        architecture = space.read(value)
    except UserError as error:
        raise error if path is None else UserError(f"{path}: {error}") from None
    problem = dataset.problem()
    if problem is None:
        raise UserError(
            f"dataset {dataset.name} tells the shape of its images only when it reads them; "
            "choose another one with dataset=NAME"
        )
    return Found(architecture, space, problem, dataset.name)


def say(found: Found, panels: Mapping[str, Graph], scale: Scale, console: Console) -> None:
    """Print the architecture: as its space writes it, as a graph in words, and by its layers."""
    from nasrun.report.graph_text import lines_of
    from nasrun.report.layer_table import layer_rows, layer_table

    space, architecture, problem = found.space, found.architecture, found.problem

    def put(text: str = "", style: str | None = None) -> None:
        console.print(printable(text), markup=False, style=style)

    put(space.write(architecture), "bold")
    images = f"{problem.channels}×{problem.size}×{problem.size}"
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
