"""Skip connections among the options of a space, by their names."""

from __future__ import annotations

import re

from nasrun.errors import MissingCapabilityError
from nasrun.search_space.base import SearchSpace
from nasrun.search_space.capabilities import DeeperCells, has_deeper_cells
from nasrun.values import Architecture

SKIP = re.compile("skip|skip_connect|identity")
"""Names of options that pass their input on unchanged."""


def skip_options(space: SearchSpace) -> dict[int, int]:
    """Return the option that is a skip connection of each decision that has one, by index."""
    return {
        index: option
        for index, decision in enumerate(space.decisions)
        for option, name in enumerate(decision.options)
        if SKIP.fullmatch(name)
    }


def check_skips(space: SearchSpace, setting: str) -> None:
    """Raise UserError if no option of the space is a skip connection."""
    if not skip_options(space):
        raise MissingCapabilityError(
            f"{setting} is about skip connections, and {space.name} has no option that is one: "
            "leave it out, or",
            group="search_space",
            has=has_deeper_cells,
        )


def count_skips(space: SearchSpace, architecture: Architecture) -> int:
    """Count the skip connections of an architecture; of cells, those of the normal cell."""
    options = space.normal_skips if isinstance(space, DeeperCells) else skip_options(space)
    return sum(architecture.choices[index] == option for index, option in options.items())
