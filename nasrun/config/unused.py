"""Refuse words of the command line that the chosen options would ignore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nasrun.building.allowed import find_class
from nasrun.config.compose import parse
from nasrun.errors import UserError


def refuse_unused_sampler(settings: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Raise UserError if the user names a sampler for a search that learns its gates.

    A recipe may name one, for those of its algorithms that need it; so may the run that ``from``
    names.

    settings: the plain configuration. overrides: those of the command line.
    """
    algo = settings.get("search_algo")
    of_search = settings.get("task") == "search" and settings.get("from") is None
    if not of_search or not isinstance(algo, Mapping) or "_target_" not in algo:
        return
    found = find_class(algo["_target_"], "search_algo")
    if not getattr(found, "learns_gates", False):
        return
    for override in overrides:
        if parse(override).get_key_element().partition(".")[0] == "sampler":
            raise UserError(
                f"{override}: search_algo {found.__name__} sets the gates of every step itself, "
                "so that a sampler has no part in it; leave it out"
            )
