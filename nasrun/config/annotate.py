"""Write the comments of files into a composed configuration; Hydra prints it without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf

from nasrun.config.comments import described
from nasrun.config.compose import flatten
from nasrun.config.guard import LOADED
from nasrun.config.yaml_files import PARSER, YAMLError

RECIPES = ("experiment", "effort")
"""Groups whose files set values of other groups: a line then says so."""


def comments(overridden: Sequence[str]) -> dict[str, str]:
    """Return the comment of each key of the configuration that Hydra has composed last.

    It is the meaning that the file of the option tells, and what has set another value.
    overridden: keys that the command line sets.
    """
    meanings: dict[str, str] = {}
    set_by: dict[str, str] = {}
    for default, result in LOADED:
        path = str(default.config_path)
        group, _, option = path.rpartition("/")
        package = (default.package or "").removeprefix("_global_")
        scheme, _, root = result.path.partition("://")
        file = described(Path(root) / f"{path}.yaml") if scheme == "file" else None
        if group.partition("/")[0] in RECIPES:
            name = f"{group}={option}" if group in RECIPES else group.replace("/", "=", 1)
            name = name.partition("/")[0]
            said = {entry.key: entry.comment for entry in file.entries} if file else {}
            for key in flatten(OmegaConf.to_container(result.config)):
                comment = said.get(key, "")
                set_by[key] = f"{name} ({comment})" if comment else name
            continue
        if file is None:
            continue
        if package and not option.startswith("_"):
            meanings[package] = f"{group}={option}: {file.summary}"
        for entry in file.entries:
            key = f"{package}.{entry.key}" if package else entry.key
            if entry.comment and not entry.inherited:
                meanings[key] = entry.comment
            set_by.pop(key, None)
    for key in overridden:
        for inner in [name for name in (*meanings, *set_by) if f"{name}.".startswith(f"{key}.")]:
            set_by[inner] = "the command line"
    for key, setter in set_by.items():
        meaning = meanings.get(key, "").removesuffix(".")
        meanings[key] = f"{meaning}; set by {setter}" if meaning else f"set by {setter}"
    return {key: comment for key, comment in meanings.items() if comment}


def annotated(text: str, meanings: Mapping[str, str], package: str = "") -> str:
    """Return a YAML text with a comment behind each key that has one; its values stay the same.

    package: the node of the configuration that the text shows; "": the whole.
    """
    try:
        root = yaml.compose(text, Loader=PARSER)
    except YAMLError:
        return text
    if not isinstance(root, yaml.MappingNode):
        return text
    behind: dict[int, str] = {}
    above: dict[int, str] = {}
    _place(root, package, meanings, behind, above)
    lines = []
    for number, line in enumerate(text.splitlines()):
        if number in above:
            lines.append(f"{line[: len(line) - len(line.lstrip())]}# {above[number]}")
        lines.append(f"{line}  # {behind[number]}" if number in behind else line)
    found = "\n".join(lines) + "\n"
    return found if _same(found, text) else text


def _place(
    node: Any,
    where: str,
    meanings: Mapping[str, str],
    behind: dict[int, str],
    above: dict[int, str],
) -> None:
    """Find the line of each comment: behind its key, or above a value of several lines."""
    for key, value in node.value:
        place = f"{where}.{key.value}" if where else str(key.value)
        line = key.start_mark.line
        if place in meanings:
            scalar = isinstance(value, yaml.ScalarNode)
            broken = scalar and value.end_mark.line > line and value.value
            (above if broken else behind)[line] = meanings[place]
        if isinstance(value, yaml.MappingNode):
            _place(value, place, meanings, behind, above)


def _same(one: str, other: str) -> bool:
    """Tell whether two YAML texts have the same values."""
    try:
        return bool(PARSER(one).get_single_data() == PARSER(other).get_single_data())
    except YAMLError:
        return False
