"""Build the objects that a configuration names by ``_target_``, with checked arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nasrun.building.allowed import arguments_of, find_class, place_of
from nasrun.building.field_words import in_our_words
from nasrun.building.hints import buildable_classes, checked
from nasrun.errors import UserError, nearest


def build(node: Any, where: str = "", wanted: tuple[type, ...] | None = None) -> Any:
    """Build the object that a plain configuration node stands for.

    A mapping with a ``_target_`` becomes an object of that class, the nodes inside it first; any
    other mapping, list or value stays what it is.

    node: resolved and plain (dict, list, str, numbers); never changed.
    where: its place in the configuration, for messages.
    wanted: the only classes that may be built here; None: any class of the allow-list. Others are
    refused before they are built, since some classes of nasrun write files.
    Raises UserError if a class must not be built, or if its arguments are wrong.
    """
    if isinstance(node, list):
        return [build(value, f"{where}[{index}]", wanted) for index, value in enumerate(node)]
    if not isinstance(node, Mapping):
        if isinstance(node, float) and not math.isfinite(node):
            raise UserError(f"{where} = {node}: must be a finite number")
        return node
    if "_target_" not in node:
        return {key: build(value, place_of(where, key), wanted) for key, value in node.items()}
    found = find_class(node["_target_"], where)
    if wanted is not None and not issubclass(found, wanted):
        names = " or ".join(cls.__name__ for cls in wanted) or "plain value"
        raise UserError(f"{where} must be a {names}, not a {found.__name__}")
    return call(found, {key: node[key] for key in node if key != "_target_"}, where)


def call(cls: type, arguments: dict[str, Any], where: str) -> Any:
    """Return ``cls(**arguments)``, each argument built and checked against its type hint.

    Raises UserError if an argument is missing, unknown or of a wrong type.
    """
    parameters, hints = arguments_of(cls, where)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = [p for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = [p.name for p in named]
    for key in arguments:
        if key not in names and not open_ended:
            told = in_our_words(place_of(where, key))
            near = f": {told}" if told else nearest(str(key), names)
            near = near or f"; {cls.__name__} takes {', '.join(names) or 'none'}"
            raise UserError(f"{place_of(where, key)}: {cls.__name__} has no such setting{near}")
    for parameter in named:
        if parameter.default is parameter.empty and parameter.name not in arguments:
            place = place_of(where, parameter.name)
            raise UserError(f"{place} is missing: {cls.__name__} needs it")
    ready = {}
    for key, value in arguments.items():
        place, hint = place_of(where, key), hints.get(key, Any)
        built = build(value, place, buildable_classes(hint))
        ready[key] = checked(built, hint, place) if key in hints else built
    try:
        return cls(**ready)
    except UserError as error:
        if not where or str(error).startswith(where):
            raise
        raise UserError(f"{where}: {error}") from error
