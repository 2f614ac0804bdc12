"""The allow-list of packages whose classes a configuration may name, and their look-up.

A configuration may come from a stranger, so it never decides what is safe: a ``_target_`` is built
only if both its string and the module of the class that it resolves to are on the list.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any, get_type_hints

from nasrun.errors import UserError, nearest, shortened

ALLOWED = ("nasrun", "torch.optim")
"""Packages whose classes a configuration may name."""

TRUST_VARIABLE = "NASRUN_TRUST"
"""Environment variable: further packages, comma separated. Never read from a configuration."""

MAX_TARGET_CHARACTERS = 200
"""Upper bound of the length of a ``_target_``: every dot in it imports one more module."""

_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)


@cache
def trusted_packages() -> tuple[str, ...]:
    """Return the packages that the user names in the environment, which is read once.

    Later changes of the environment, by whatever a run loads, trust nothing more.
    """
    return tuple(
        name.strip() for name in os.environ.get(TRUST_VARIABLE, "").split(",") if name.strip()
    )


def read_trust() -> None:
    """Read the environment now: a command begins."""
    trusted_packages.cache_clear()
    trusted_packages()


def is_allowed(module: object) -> bool:
    """Tell whether ``module`` is the name of a module in a package of the list."""
    return isinstance(module, str) and any(
        module == package or module.startswith(f"{package}.")
        for package in ALLOWED + trusted_packages()
    )


def find_class(target: object, where: str) -> type:
    """Return the class that ``target`` names as ``module.Class``.

    The name is looked up in the module itself: no walk through attributes (``nasrun.x.os.system``)
    and no class that the module has merely imported (``nasrun.config.compose.Path``).

    where: place of the node in the configuration, for messages.
    Raises UserError if there is no such class, or if it must not be built.
    """
    shown = f"{place_of(where, '_target_')} = {shortened(repr(target))}"
    too_long = isinstance(target, str) and len(target) > MAX_TARGET_CHARACTERS
    if not isinstance(target, str) or too_long or not _TARGET.fullmatch(target):
        raise UserError(f"{shown}: must be module.Class")
    module_name, _, name = target.rpartition(".")
    refusal = (
        f"{shown}: only classes of {', '.join(ALLOWED + trusted_packages())} are built; name "
        f"further packages that you trust in the environment: {TRUST_VARIABLE}=PACKAGE,PACKAGE"
    )
    if not is_allowed(module_name):
        raise UserError(refusal)
    module = _imported(module_name, shown)
    found = vars(module).get(name)
    if isinstance(found, type) and not is_allowed(found.__module__):
        raise UserError(refusal)
    if not isinstance(found, type):
        classes = [
            key
            for key, value in vars(module).items()
            if isinstance(value, type) and is_allowed(value.__module__)
        ]
        kind = "" if found is None else f", {name!r} is a {type(found).__name__}"
        near = nearest(name, classes)
        raise UserError(f"{shown}: {module_name} has no such class{kind}{near}")
    if inspect.isabstract(found) or getattr(found, "_is_protocol", False):
        raise UserError(f"{shown}: is an interface, name one of its implementations")
    return found


def _imported(module: str, shown: str) -> ModuleType:
    """Import a module of the list; raises UserError where that fails, for a trusted package.

    shown: the place that names it, for messages.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise UserError(f"{shown}: there is no module {error.name}") from error
        cause: BaseException = error
    except (Exception, SystemExit) as error:
        cause = error
    if module.partition(".")[0] in ("nasrun", "torch"):
        raise cause
    words = f"{type(cause).__name__}: {shortened(str(cause))}"
    raise UserError(f"{shown}: {module} cannot be imported ({words})") from cause


def arguments_of(
    cls: type, where: str, *, include_extras: bool = True
) -> tuple[Mapping[str, inspect.Parameter], dict[str, Any]]:
    """Return the parameters of a class's constructor, and their type hints by name.

    where: place of the node in the configuration, for messages.
    Raises UserError if Python does not know them: a class of C, or a hint that names nothing.
    """
    try:
        return (
            inspect.signature(cls).parameters,
            get_type_hints(inspect.getattr_static(cls, "__init__"), include_extras=include_extras),
        )
    except (NameError, TypeError, ValueError) as error:
        raise UserError(
            f"{place_of(where, '_target_')}: the arguments of {cls.__name__} cannot be known "
            f"({shortened(str(error))})"
        ) from error


def place_of(where: str, key: object) -> str:
    """Return the place of ``key`` inside the node at ``where``, for messages."""
    return f"{where}.{shortened(str(key))}" if where else shortened(str(key))
