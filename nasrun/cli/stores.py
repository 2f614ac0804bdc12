"""Folders that runs share: they keep their place, unless a stranger's run has chosen it."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

from nasrun.errors import shortened
from nasrun.run.commands import command
from nasrun.run.files import printable
from nasrun.run.layout import LATENCIES


def with_places(settings: Mapping[str, Any], stores: Mapping[str, str]) -> dict[str, Any]:
    """Return settings whose stores are absolute paths, so that they mean the same everywhere.

    stores: settings that name folders shared by runs (``Task.stores``).
    """
    placed = deepcopy(dict(settings))
    for node, leaf, _ in _nodes(placed, stores):
        if isinstance(node[leaf], str):
            with suppress(RuntimeError):  # ~NAME of a user that there is not
                node[leaf] = str(Path(node[leaf]).expanduser().absolute())
    return placed


def keep_near(
    settings: dict[str, Any], directory: Path, given: Container[str], stores: Mapping[str, str]
) -> list[str]:
    """Keep a stranger's run from writing to folders of its choice and from reading any table.

    It may write to the default shared folders beside or above its directory, otherwise only to
    folders of its own.

    settings: of the run; changed. directory: of the run. given: keys that the user has typed.
    stores: settings that name shared folders -> default names of these folders.
    Returns a line for each setting that was replaced.
    """
    said = []
    for node, leaf, key in _nodes(settings, stores):
        if key in given or node[leaf] is None:
            continue
        allowed = [place / stores[key] for place in (directory, *directory.resolve().parents[:4])]
        wanted = str(node[leaf])
        if Path(wanted).absolute() not in allowed:
            node[leaf] = str(next((place for place in allowed if place.is_dir()), allowed[0]))
            shown = printable(shortened(wanted, 100))
            said.append(
                f"{key}={shown} is not used, since this run was not begun here by you: "
                f"{node[leaf]} is; to use it: {command('resume', directory, f'{key}={shown}')}"
            )
        if node.get("table") is not None:
            node["table"] = str(directory / LATENCIES)
    return said


def _nodes(
    settings: Mapping[str, Any], stores: Mapping[str, str]
) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Yield the mapping that holds each setting, the setting's last name, and its full key."""
    for key in stores:
        *parents, leaf = key.split(".")
        node: Any = settings
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if isinstance(node, dict) and leaf in node:
            yield node, leaf, key
