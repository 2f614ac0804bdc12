"""Architectures that people have: named ones, and those in files, logs and Python code.

A word names one: ``FILE``, ``FILE:NAME`` (of several in a file), or ``NAME`` of a published one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasrun.architectures.published import FOLDER, Published, find_published, near_name
from nasrun.errors import UserError, nearest, shortened
from nasrun.run.files import at_home, printable, read_json_or_text
from nasrun.run.layout import ARCHITECTURE
from nasrun.search_space.genotype import Found, Genotype, find_genotypes, genotype_of

MAX_NAMES = 12
"""Names of a file's genotypes in a message."""

NB201_STRING = re.compile(r"\|\w{1,40}~[0-9]\|(?:\+?\|?\w{1,40}~[0-9]\|){1,20}")
"""A cell of NAS-Bench-201, ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|``, in any text."""


@dataclass(frozen=True)
class Given:
    """An architecture as it was found.

    value: what ``SearchSpace.read`` takes. settings: of its search space, by full key, the group
    first; empty: the value does not tell. published: the named architecture that it is, if it is.
    note: what was chosen, for people; "": nothing was.
    """

    value: Any
    settings: Mapping[str, Any]
    published: Published | None = None
    note: str = ""


@dataclass(frozen=True)
class Place:
    """The place of an architecture. path: of its file. name: of one of several in it, or None."""

    path: Path
    name: str | None = None


def find_place(word: str) -> Place:
    """Return the file that a word names, and the name within; raises UserError if there is none."""
    path = at_home(word)
    if _is_there(path):
        return Place(path.resolve())  # the user's own file may be a link
    found = find_published(path.name)
    if found is not None:
        return Place(found.path)
    file, colon, name = word.rpartition(":")
    if colon and _is_there(at_home(file)):
        return Place(at_home(file).resolve(), name)
    raise UserError(
        f"architecture={printable(shortened(word, 100))}: there is no such file, and no published "
        f"architecture of that name{nearest(path.name, _beside(path)) or near_name(path.name)}; "
        "`nasrun show --list` lists them"
    )


def read_given(place: Place) -> Given:
    """Read the architecture at a place; raises UserError, naming the file, if there is none."""
    published = find_published(place.path.stem) if place.path.parent == FOLDER else None
    if published is not None:
        return Given(published.architecture, published.settings(), published)
    hint = f"give the {ARCHITECTURE} of a search, or an architecture as its space writes it"
    value = read_json_or_text(place.path, hint)
    try:
        return given(value, place.name)
    except UserError as error:
        raise UserError(f"{place.path}: {error}") from None


def given(value: Any, name: str | None = None) -> Given:
    """Make an architecture of a file's content, or of a text. name: of one of several in it."""
    if isinstance(value, dict):
        if name is not None:
            raise UserError(f"there is nothing called {name!r} in it: it is one architecture")
        return Given(value, settings_of_json(value))
    text = str(value)
    if re.search(r"\bGenotype\s{0,9}\(", text):
        found, note = chosen(find_genotypes(text), name)
        return Given(found.genotype.write(), settings_of(found.genotype), note=note)
    if name is not None:
        raise UserError(f"there is no genotype called {name!r} in it")
    cells = list(dict.fromkeys(NB201_STRING.findall(text)))
    if len(cells) > 1:
        raise UserError(
            f"there are {len(cells)} cells of NAS-Bench-201 in it, {cells[0]} and others: give one"
        )
    if cells:
        return Given(cells[0], {"search_space": "nas_bench_201"})
    return Given(value, {})


def with_own_space(error: UserError, found: Given, option: str) -> UserError:
    """Return an error about reading an architecture, with the space to which it belongs.

    option: of ``search_space``, by which it was read.
    """
    own = str(found.settings.get("search_space", option))
    if own == option or f"search_space={own}" in str(error):
        return error
    return UserError(f"{error}; it is an architecture of search_space={own}")


def chosen(found: list[Found], name: str | None) -> tuple[Found, str]:
    """Return the genotype of this name, or the only one; and what was chosen, for people.

    Of several with one name, as a log has them, it is the last. Raises UserError if the choice is
    open, or if there is none of this name.
    """
    known = list(dict.fromkeys(one.name for one in found))
    if name is None and len({one.genotype for one in found}) == 1:
        return found[0], ""
    if name is None and len(known) > 1:
        shown = ", ".join(known[:MAX_NAMES])
        more = f" and {len(known) - MAX_NAMES} more" if len(known) > MAX_NAMES else ""
        raise UserError(
            f"there are {len(known)} genotypes in it: name one, as FILE:{known[0]}; there are "
            f"{shown}{more}"
        )
    name = known[0] if name is None else name
    own = [one for one in found if one.name == name]
    if not own:
        shown = ", ".join(known[:MAX_NAMES])
        raise UserError(
            f"there is no genotype called {name!r} in it{nearest(name, known)}; there are {shown}"
        )
    if len(own) == 1:
        return own[0], ""
    return own[-1], (
        f"{len(own)} genotypes are called {name}: taking the last one, of line {own[-1].line}"
    )


def settings_of(genotype: Genotype) -> dict[str, Any]:
    """Return the settings of the search space that a genotype belongs to.

    That is ``darts_cell`` if it can be, since more methods work there, else ``general_cell``.
    """
    from nasrun.search_space.darts_cell.wiring import choices_of_genotype

    nodes = max(len(cell.nodes) for cell in genotype.cells)
    try:
        choices_of_genotype(genotype, nodes)
    except UserError:
        edges = max(len(node) for cell in genotype.cells for node in cell.nodes)
        return {
            "search_space": "general_cell",
            "search_space.nodes": nodes,
            "search_space.edges": max(edges, 1),
        }
    return {"search_space": "darts_cell", "search_space.nodes": nodes}


def settings_of_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the search space that an architecture's JSON names, or its genotype fits."""
    if "normal" in value:
        return settings_of(genotype_of(value))
    space = value.get("space")
    return {"search_space": space.partition("/")[0]} if isinstance(space, str) else {}


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _beside(path: Path) -> Iterator[str]:
    try:
        yield from (other.name for other in path.parent.iterdir())
    except (OSError, ValueError):
        return
