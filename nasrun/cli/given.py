"""``architecture=WORD``: the search space of an architecture, where the line names none."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from nasrun.architectures.given import Given, find_place, read_given
from nasrun.config.groups import defaults, files_of, groups, option_of_recipe
from nasrun.config.yaml_files import read
from nasrun.errors import UserError

SETTING = "architecture"


def with_given(overrides: Sequence[str], config_dir: str | None) -> list[str]:
    """Put the settings of the space of ``architecture=WORD`` before the user's overrides.

    Nothing is added if the line chooses a search space itself, or if the architecture does not
    tell one; one that cannot be read is refused later, by the task.
    Raises UserError over a sweep of architectures of different spaces.
    """
    words = [word for override in overrides for word in words_of(override)]
    from nasrun.config.compose import parse  # slow to import

    chosen = {parse(override).key_or_group: override for override in overrides}
    if not words or "search_space" in chosen:
        return list(overrides)
    try:
        found = [read_given(find_place(word)) for word in words]
    except UserError:
        return list(overrides)
    for one in found:
        if one.note:
            sys.stderr.write(f"nasrun: note: {one.note}\n")
    every = [settings_for(one, overrides, config_dir) for one in found]
    if any(settings != every[0] for settings in every):
        raise UserError(
            "the architectures of this sweep belong to different search spaces: start one run for "
            "each"
        )
    return [*(word for word in every[0] if word.partition("=")[0] not in chosen), *overrides]


def words_of(override: str) -> list[str]:
    """Return the architectures that an override names, several in a sweep; [] for other keys."""
    if not override.startswith(f"{SETTING}="):
        return []
    from nasrun.config.compose import parse  # slow to import

    parsed = parse(override)
    if parsed.is_sweep_override():
        return [str(value) for value in parsed.sweep_string_iterator()]
    value = parsed.value()
    return [value] if isinstance(value, str) and value else []


def settings_for(given: Given, overrides: Sequence[str], config_dir: str | None) -> list[str]:
    """Return the overrides that choose the space of an architecture, and settings of it.

    A recipe, and a smoke, keep their own depth and width; without them a published architecture
    gets those of its authors, for images as large as those of the data set.
    """
    plain = dict(override.partition("=")[::2] for override in overrides)
    recipe = plain.get("experiment")
    settings = dict(given.settings)
    if given.published is not None:
        scale = recipe is None and plain.get("effort") != "smoke"
        settings = given.published.settings(side_of_images(plain, config_dir), scale=scale)
    space = settings.get("search_space")
    if space not in groups(config_dir)["search_space"]:
        return []
    of_recipe = recipe and option_of_recipe(recipe, "search_space", config_dir)
    if space == (of_recipe or defaults()["search_space"]):
        del settings["search_space"]
    return [f"{key}={value}" for key, value in settings.items()]


SIDE_AS_READ = 32
"""Side of the largest images whose data set's file does not tell it: those of CIFAR."""


def side_of_images(plain: dict[str, str], config_dir: str | None) -> int:
    """Return the side of the images, in pixels; of rectangles the longer one."""
    option = plain.get("dataset", defaults()["dataset"])
    files = files_of("dataset", config_dir)
    own = read(files[option]).get("image_size") if option in files else None
    sides = re.findall("[0-9]{1,9}", str(plain.get("dataset.image_size", own)))
    return max(map(int, sides), default=SIDE_AS_READ)
