"""Find the architecture that a word names, its search space, and the shape of its images.

The word names a run (its winner, or a point of its front), a file, one of several in a file, a
published architecture, or is the architecture itself.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nasrun.architectures.given import (
    Given,
    Place,
    find_place,
    given,
    read_given,
    with_own_space,
)
from nasrun.architectures.published import near_name
from nasrun.building.allowed import find_class
from nasrun.cli.given import settings_for
from nasrun.errors import UserError, nearest, shortened
from nasrun.run.files import at_home, printable, read_json_or_text
from nasrun.run.layout import ARCHITECTURE, FRONT, RECORD

if TYPE_CHECKING:
    from nasrun.search_space.base import SearchSpace
    from nasrun.values import Architecture, Problem

OWN_SETTINGS = ("out", "pick", "scale", "outputs")
"""Settings of the command: file of the picture, place in a front, scale, folder of all runs."""

Configuration = Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """The words of the command line, sorted.

    what: a run, a file, a published architecture, or one as its space writes it.
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


class UnreadError(UserError):
    """An architecture that no search space reads."""


@dataclass(frozen=True)
class Found:
    """An architecture, its space, and the shape of the images."""

    architecture: Architecture
    space: SearchSpace
    problem: Problem
    dataset: str


def exists(path: Path) -> bool:
    """Tell whether there is something of this name, which may be none that a file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def find(request: Request) -> Found:
    """Find the architecture and the configuration that it belongs to; raises UserError."""
    from nasrun.cli.run_names import LATEST, OUTPUTS, resolve

    path, pick = at_home(request.what), request.own.get("pick")
    if exists(path) and not path.is_dir():
        if pick is not None:
            raise UserError(f"pick={pick} is a place in the front of a run, and {path} is a file")
        if path.name == ARCHITECTURE and (path.parent / RECORD).is_file():
            value = read_json_or_text(path.resolve())
            return built(value, run_configuration(path.parent, request), path)
        return of_given(read_given(Place(path.resolve())), request, path)
    try:
        needed = FRONT if pick is not None else ARCHITECTURE
        outputs = request.own.get("outputs", OUTPUTS)
        directory = resolve(request.what, needed=needed, outputs=outputs)
    except UserError as error:
        if request.what == LATEST or exists(path) or pick is not None:
            raise
        return of_text(request, str(error))
    value = of_run(directory, pick)
    return built(value, run_configuration(directory, request), directory / ARCHITECTURE)


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


def of_text(request: Request, no_run: str) -> Found:
    """Read the word as a published architecture, as FILE:NAME, or as an architecture.

    no_run: why it names no run, for the message.
    """
    place: Place | None = None
    if "Genotype(" not in request.what:
        with suppress(UserError):
            place = find_place(request.what)
    if place is not None:
        return of_given(read_given(place), request, place.path)
    try:
        return of_given(given(request.what), request, None)
    except UnreadError as error:
        near = beside(request.what) or near_name(request.what)
        raise UserError(f"{no_run}{near}; {error}") from None


def of_given(found: Given, request: Request, path: Path | None) -> Found:
    """Find the space of an architecture that may tell settings of it."""
    from nasrun.config.groups import groups

    if found.note:
        sys.stderr.write(f"nasrun: note: {found.note}\n")
    chosen = [word.partition("=") for word in request.overrides]
    named = [option for key, _, option in chosen if key == "search_space"]
    options = groups(request.config_dir)["search_space"]
    if named or found.settings.get("search_space") not in options:
        try:
            return of_value(found.value, request, path)
        except UserError as error:
            raise (with_own_space(error, found, named[-1]) if named else error) from None
    words = settings_for(found, request.overrides, request.config_dir)
    own = {override.partition("=")[0] for override in request.overrides}
    words = [word for word in words if word.partition("=")[0] not in own]
    return built(found.value, composed([*words, *request.overrides], request.config_dir), path)


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
    if named is not None:
        words = [f"search_space={named}", *request.overrides]
        return built(value, composed(words, request.config_dir), path)
    return guessed(value, options, request, path)


def guessed(value: Any, options: Sequence[str], request: Request, path: Path | None) -> Found:
    """Find the only space that reads the text; raises UserError if none does, or several do."""
    for override in request.overrides:
        if override.startswith("search_space."):
            raise UserError(
                f"{override}: add search_space=NAME, for each space has its own settings"
            )
    found: dict[str, Configuration] = {}
    for option in options:
        if not plausible(value, option, request):
            continue
        configuration = composed([f"search_space={option}", *request.overrides], request.config_dir)
        with suppress(UserError):
            space_of(configuration).read(value)
            found[option] = configuration
    if len(found) == 1:
        return built(value, next(iter(found.values())), path)
    shown = printable(shortened(str(value), 60))
    if found:
        raise UserError(
            f"{shown!r} is an architecture of {' and of '.join(found)}: add "
            f"{' or '.join(f'search_space={option}' for option in found)}"
        )
    where = "" if path is None else f"{path}: "
    raise UnreadError(f"{where}{shown!r} is no architecture of any search space as configured")


def plausible(value: Any, option: str, request: Request) -> bool:
    """Tell whether the space may read the value as its file stands; composing takes longer."""
    from nasrun.config.groups import files_of
    from nasrun.config.yaml_files import read

    node = read(files_of("search_space", request.config_dir)[option])
    with suppress(UserError):
        if getattr(find_class(node.get("_target_"), "search_space"), "fixed", False):
            return False  # its architecture is its name, and building it takes seconds
    if "defaults" in node or any(word.startswith("effort=") for word in request.overrides):
        return True
    try:
        space_of({"search_space": without_interpolations(node)}).read(value)
    except UserError:
        return False
    return True


def without_interpolations(node: Any) -> Any:
    """Return a node of a YAML file with null in the place of what stands in other files."""
    if isinstance(node, dict):
        return {key: without_interpolations(inner) for key, inner in node.items()}
    return None if isinstance(node, str) and "${" in node else node


def beside(word: str) -> str:
    """Name the file that is nearest to a path which does not exist, for a message."""
    path = at_home(word)
    try:
        return nearest(path.name, [other.name for other in path.parent.iterdir()])
    except (OSError, ValueError):
        return ""


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


def space_of(configuration: Configuration) -> SearchSpace:
    """Build the search space of a configuration; raises UserError if it has none."""
    from nasrun.config.build import build
    from nasrun.search_space.base import SearchSpace

    space = build(configuration.get("search_space"), "search_space", (SearchSpace,))
    if not isinstance(space, SearchSpace):
        raise UserError("the configuration has no search space")
    return space


def built(value: Any, configuration: Configuration, path: Path | None) -> Found:
    """Build space and dataset, and read the architecture. path: the file that it comes from."""
    from nasrun.config.build import build
    from nasrun.dataset.base import Dataset

    space = space_of(configuration)
    dataset = build(configuration.get("dataset"), "dataset", (Dataset,))
    if not isinstance(dataset, Dataset):
        raise UserError("the configuration has no dataset")
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
