"""Settings that are paths: any character in them, and ``~`` as people type it.

A shell leaves ``~`` alone behind an equals sign, and Hydra's grammar takes neither it nor many
other characters of file names.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from nasrun.config.compose import parse, quote
from nasrun.errors import UserError
from nasrun.run.files import at_home

PATH_SETTINGS = (
    *("from", "architecture", "outputs", "hydra.*.dir", "hydra.sweep.subdir"),
    *("*.root", "*.path", "*.store", "*.truth_store", "*.table"),
)
"""Patterns of the settings that are paths."""

ALWAYS_QUOTED = ("from", "architecture")
"""Paths that are quoted even where Hydra can read them, so that records of runs stay alike."""


def is_path(key: str) -> bool:
    """Tell whether the setting ``key`` is a path."""
    return any(fnmatchcase(key, pattern) for pattern in PATH_SETTINGS)


def readable(override: str, *, several: bool = False) -> str:
    """Return an override whose path Hydra reads as it was typed, with ``~`` replaced.

    Other overrides, and what Hydra reads as the same text anyway, stay as they are.
    several: whether commas stand between the values of a sweep.
    """
    key, equals, value = override.partition("=")
    path = is_path(key.lstrip("+"))
    if not equals or value in ("", "null") or not (path or value.startswith("~")):
        return override
    several = several and key != "from"  # each job goes by the same run
    found, sweeps = _value(override)
    if several and (sweeps or found is None):
        # Hydra reads an enumeration, also of quoted values; other values stand between commas.
        if sweeps or set(value) & set("'\"[{("):
            return override
        return f"{key}={','.join(quote(_home(each)) for each in value.split(','))}"
    if isinstance(found, str) and not sweeps:
        quoted = value[0] in "'\""
        text = found if quoted or "\\" in value else value
        if text == found == _home(text) and (quoted or key not in ALWAYS_QUOTED):
            return override
        return f"{key}={quote(_home(text))}"
    return f"{key}={quote(_home(value))}"


def with_homes(node: Any, where: str = "") -> Any:
    """Return a plain configuration with ``~`` replaced in all settings that are paths."""
    if isinstance(node, dict):
        return {
            key: with_homes(value, f"{where}.{key}" if where else str(key))
            for key, value in node.items()
        }
    return _home(node) if isinstance(node, str) and is_path(where) else node


def with_absolute(node: Any, where: str = "") -> Any:
    """Return a plain configuration whose paths are absolute, so that they mean one thing.

    Relative ones count from the current directory.
    """
    if isinstance(node, dict):
        return {
            key: with_absolute(value, f"{where}.{key}" if where else str(key))
            for key, value in node.items()
        }
    return absolute(node) if is_path(where) else node


def absolute(value: Any) -> Any:
    """Return the absolute path that a text means; other values, and addresses, stay."""
    if not isinstance(value, str) or not value or "://" in value:
        return value
    return str(at_home(value).absolute())


def _home(text: str) -> str:
    """Replace a leading ``~``; a file called so, without such a user, gets its absolute path."""
    return str(at_home(text).absolute()) if text.startswith("~") else text


def _value(override: str) -> tuple[Any, bool]:
    """Return the value as Hydra reads it, and whether it is a sweep; None if it cannot be read."""
    try:
        parsed = parse(override)
    except UserError:
        return None, False
    return (None, True) if parsed.is_sweep_override() else (parsed.value(), False)
