"""Drop settings of a recipe that belong to an option which the user has replaced.

``experiment=spos_cifar10 search_algo=random`` keeps the settings that both algorithms have and
drops those that only the recipe's algorithm has. So one word compares methods under one recipe.
A word that only the recipe's option knows (``stem: imagenet``, where the chosen one has ``fit``)
gives way to the chosen option's own.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from nasrun.building.allowed import arguments_of, find_class
from nasrun.config.compose import parse
from nasrun.config.efforts import option_settings
from nasrun.config.groups import groups, settings_of


def leave_out(settings: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Remove settings that the chosen options do not have and that the user has not named.

    If the command line chooses an option beside an experiment, all settings that the option does
    not have are removed. If the experiment chooses it, only settings that another option of the
    group has are removed, since a recipe may hold settings for several options. A setting that the
    command line names is not removed here; it is refused later.

    settings: the plain configuration; changed.
    overrides: those of the command line.
    Returns the full keys that were removed from options of the command line.
    """
    parsed = [parse(override) for override in overrides]
    if not any(override.key_or_group == "experiment" for override in parsed):
        return []
    named = {override.get_key_element(): override.value() for override in parsed}
    left_out: list[str] = []
    for group in sorted(groups().keys() - {"experiment", "effort", "task"}):
        node = settings.get(group)
        if not isinstance(node, dict) or "_target_" not in node:
            continue
        found = find_class(node["_target_"], group)
        parameters, hints = arguments_of(found, group, include_extras=False)
        known = {name: hints.get(name) for name in parameters}
        if group in named:
            left_out += _unknown(node, known, group, named)
            left_out += _foreign(node, known, group, named)
            continue
        for key in node.keys() & settings_of(group) - known.keys() - {"_target_"}:
            if f"{group}.{key}" not in named:
                del node[key]
    return left_out


def _unknown(
    node: dict[str, Any], known: Mapping[str, Any], where: str, named: Container[str]
) -> Iterator[str]:
    """Remove and yield the keys of ``node`` that are not ``known``, also in nested settings."""
    for key in list(node):
        place = f"{where}.{key}"
        hint = known.get(key)
        if key == "_target_" or place in named:
            continue
        if key not in known:
            del node[key]
            yield place
        elif isinstance(hint, type) and issubclass(hint, BaseModel) and isinstance(node[key], dict):
            inner = {name: field.annotation for name, field in hint.model_fields.items()}
            yield from _unknown(node[key], inner, place, named)


def _foreign(
    node: dict[str, Any], known: Mapping[str, Any], group: str, named: Mapping[str, Any]
) -> Iterator[str]:
    """Give the chosen option its own words where it does not know the recipe's; yield the keys."""
    own = option_settings(group, str(named[group]), None)
    for key, hint in known.items():
        words = get_args(hint) if get_origin(hint) is Literal else ()
        strange = key in node and node[key] not in words and own.get(key) in words
        if words and strange and f"{group}.{key}" not in named:
            node[key] = own[key]
            yield f"{group}.{key}"
