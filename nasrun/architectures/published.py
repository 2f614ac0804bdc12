"""Published architectures by name, each a file of ``named/`` with numbers and source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from nasrun.run.files import read_object

FOLDER = Path(__file__).parent / "named"

LARGE_SIDE = 64
"""Side of images, in pixels, from which on the network for large images is taken."""


@dataclass(frozen=True)
class Network:
    """A network of a published architecture, at the scale that its authors give numbers for.

    shape: of the images, [C, H, W]. settings: of the search space, without ``search_space.``.
    params, macs: as nasrun counts them. said: the numbers as they were published, for people.
    differs: why they are not those that nasrun counts; "": they are, as far as they were rounded.
    """

    shape: tuple[int, int, int]
    classes: int
    settings: Mapping[str, Any]
    params: int
    macs: int
    said: str = ""
    differs: str = ""


@dataclass(frozen=True)
class Published:
    """A published architecture.

    space: the option of the group ``search_space``, and ``options`` its settings, as far as they
    are not of a scale. architecture: as the space writes it. networks: the usual one first.
    about: one line of words. source: paper, section, released code.
    """

    name: str
    space: str
    options: Mapping[str, Any]
    architecture: str
    networks: tuple[Network, ...]
    about: str
    source: str
    path: Path = field(default=FOLDER, compare=False)

    def settings(self, side: int | None = None, *, scale: bool = True) -> dict[str, Any]:
        """Return the settings that build the network, by full key, the group first.

        side: of the images, in pixels; None: those of the usual network. scale: whether those of
        depth, width and stem are among them.
        """
        chosen = {**self.options, **(self.network(side).settings if scale else {})}
        return {
            "search_space": self.space,
            **{f"search_space.{key}": value for key, value in chosen.items()},
        }

    def network(self, side: int | None = None) -> Network:
        """Return the network for images of this size, or the nearest to it that was published."""
        if side is None:
            return self.networks[0]
        large = side >= LARGE_SIDE
        fit = [one for one in self.networks if (max(one.shape[1:]) >= LARGE_SIDE) == large]
        return (fit or list(self.networks))[0]

    @staticmethod
    def of_json(value: Mapping[str, Any], path: Path = FOLDER) -> Published | None:
        """Read the content of a file of ``named/``; None if it is something else."""
        if not {"name", "space", "architecture", "networks"} <= value.keys():
            return None
        networks = tuple(
            Network(
                shape=tuple(one["images"]),
                classes=one["classes"],
                settings=one["settings"],
                params=one["params"],
                macs=one["macs"],
                said=one.get("said", ""),
                differs=one.get("differs", ""),
            )
            for one in value["networks"]
        )
        return Published(
            name=value["name"],
            space=value["space"],
            options=value["options"],
            architecture=value["architecture"],
            networks=networks,
            about=value["about"],
            source=value["source"],
            path=path,
        )


@cache
def all_published() -> tuple[Published, ...]:
    """Return all published architectures, sorted by name."""
    found = (Published.of_json(read_object(path), path) for path in sorted(FOLDER.glob("*.json")))
    return tuple(sorted((one for one in found if one), key=lambda one: one.name.lower()))


def names() -> list[str]:
    """Return the names of all published architectures."""
    return [one.name for one in all_published()]


def find_published(name: str) -> Published | None:
    """Return the architecture of this name, however it is spelt; None if there is none."""
    wanted = _plain(name)
    return next((one for one in all_published() if _plain(one.name) == wanted), None)


def near_name(word: str) -> str:
    """Return `` (did you mean 'DARTS_V2'?)``, or an empty string if no name is near."""
    known = {_plain(name): name for name in names()}
    close = get_close_matches(_plain(word), known, n=1)
    return f" (did you mean {known[close[0]]!r}?)" if close else ""


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
