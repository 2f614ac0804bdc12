"""From a configuration to objects: which classes may be built, and with which arguments.

A configuration may come from a stranger, so it names classes but never decides what is safe: a
``_target_`` is built only if its string and the module of the class that it resolves to are both
on the list below.
"""

from __future__ import annotations

import importlib
import inspect
import math
import os
import re
import types
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from dataclasses import fields
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from nasrun.config.groups import files_of, read
from nasrun.errors import UserError, nearest, shortened

if TYPE_CHECKING:
    from nasrun.task.setup import Setup

ALLOWED = ("nasrun", "torch.optim")
"""Packages whose classes a configuration may name."""

TRUST = "NASRUN_TRUST"
"""Environment variable: further packages, comma separated. Never read from a configuration."""

_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_LONGEST = 200  # characters of a _target_; every dot is another import within an import
_JSON_TYPES = (type(None), bool, int, float, str, list, dict)


def trusted() -> tuple[str, ...]:
    """The packages that the user has named in the environment."""
    return tuple(name.strip() for name in os.environ.get(TRUST, "").split(",") if name.strip())


def _allowed(module: object) -> bool:
    return isinstance(module, str) and any(
        module == package or module.startswith(f"{package}.") for package in ALLOWED + trusted()
    )


def find_class(target: object, where: str) -> type:
    """The class that ``target`` names as ``module.Class``; raises UserError where it must not.

    The name is looked up in the module itself: no walk through attributes (``nasrun.x.os.system``)
    and no class that the module has merely imported (``nasrun.config.compose.Path``).
    """
    shown = f"{_join(where, '_target_')} = {shortened(repr(target))}"
    if not isinstance(target, str) or len(target) > _LONGEST or not _TARGET.fullmatch(target):
        raise UserError(f"{shown}: must be module.Class")
    module_name, _, name = target.rpartition(".")
    refusal = (
        f"{shown}: only classes of {', '.join(ALLOWED + trusted())} are built; name further "
        f"packages that you trust in the environment: {TRUST}=PACKAGE,PACKAGE"
    )
    if not _allowed(module_name):
        raise UserError(refusal)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise UserError(f"{shown}: there is no module {error.name}") from error
        raise
    found = vars(module).get(name)
    if isinstance(found, type) and not _allowed(found.__module__):
        raise UserError(refusal)
    if not isinstance(found, type):
        classes = [
            key
            for key, value in vars(module).items()
            if isinstance(value, type) and _allowed(value.__module__)
        ]
        raise UserError(f"{shown}: {module_name} has no such class{nearest(name, classes)}")
    if inspect.isabstract(found) or getattr(found, "_is_protocol", False):
        raise UserError(f"{shown}: is an interface, name one of its implementations")
    return found


def options_that(group: str, has: Callable[[type], bool], config_dir: str | None) -> list[str]:
    """Return the options of ``group`` whose class ``has`` something, a user's own too.

    group: its place may follow, e.g. ``evaluator@rank.also``.
    """
    found = []
    for option, path in files_of(group.partition("@")[0], config_dir).items():
        with suppress(UserError):  # an option that is broken, or not trusted
            if has(find_class(read(path).get("_target_"), group)):
                found.append(option)
    return found


def build(node: Any, where: str = "", wanted: tuple[type, ...] | None = None) -> Any:
    """The object that a plain configuration node stands for.

    A mapping with a ``_target_`` becomes an object of that class, the nodes inside it first; any
    other mapping, list or value stays what it is.

    node: resolved and plain (dict, list, str, numbers); never changed.
    where: its place in the configuration, for messages.
    wanted: the only classes that may be built here, None: any of the list. Others are refused
    before they are built: there are classes of nasrun that write files.
    """
    if isinstance(node, list):
        return [build(value, f"{where}[{index}]", wanted) for index, value in enumerate(node)]
    if not isinstance(node, Mapping):
        if isinstance(node, float) and not math.isfinite(node):
            raise UserError(f"{where} = {node}: must be a finite number")
        return node
    if "_target_" not in node:
        return {key: build(value, _join(where, key), wanted) for key, value in node.items()}
    found = find_class(node["_target_"], where)
    if wanted is not None and not issubclass(found, wanted):
        names = " or ".join(cls.__name__ for cls in wanted) or "plain value"
        raise UserError(f"{where} must be a {names}, not a {found.__name__}")
    return call(found, {key: node[key] for key in node if key != "_target_"}, where)


def build_setup(config: Mapping[str, Any]) -> Setup:
    """The parts of a run; the keys of ``config`` that ``Setup`` does not name are for others."""
    from nasrun.task.setup import Setup  # only now: the parts import torch

    names = [field.name for field in fields(Setup)]
    return cast("Setup", call(Setup, {name: config[name] for name in names if name in config}, ""))


def call(cls: type, arguments: dict[str, Any], where: str) -> Any:
    """``cls(**arguments)``, each argument built, and checked against the signature and its type
    hint."""
    parameters = inspect.signature(cls).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = [p for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = [p.name for p in named]
    for key in arguments:
        if key not in names and not open_ended:
            near = (
                nearest(str(key), names) or f"; {cls.__name__} takes {', '.join(names) or 'none'}"
            )
            raise UserError(f"{_join(where, key)}: {cls.__name__} has no such setting{near}")
    for parameter in named:
        if parameter.default is parameter.empty and parameter.name not in arguments:
            raise UserError(f"{_join(where, parameter.name)} is missing: {cls.__name__} needs it")
    constructor = inspect.getattr_static(cls, "__init__")
    hints = get_type_hints(constructor, include_extras=True)
    checked = {}
    for key, value in arguments.items():
        place, hint = _join(where, key), hints.get(key, Any)
        built = build(value, place, _wanted(hint))
        checked[key] = _check(built, hint, place) if key in hints else built
    try:
        return cls(**checked)
    except UserError as error:
        if not where or str(error).startswith(where):
            raise
        raise UserError(f"{where}: {error}") from error


def _join(where: str, key: object) -> str:
    return f"{where}.{shortened(str(key))}" if where else shortened(str(key))


def _check(value: Any, hint: Any, where: str) -> Any:
    """``value`` as ``hint`` wants it (a list becomes a tuple, ...); raises UserError."""
    classes = _classes(hint)
    if not isinstance(value, _JSON_TYPES):
        if hint is Any or not classes or isinstance(value, classes):
            return value
        wanted = " or ".join(cls.__name__ for cls in classes)
        raise UserError(f"{where} must be a {wanted}, not a {type(value).__name__}")
    parts = [cls for cls in classes if not issubclass(cls, _JSON_TYPES) and _is_part(cls)]
    if parts and len(parts) == len(classes):
        if value is None and type(None) in get_args(hint):
            return None
        if value is None:
            raise UserError(f"{where} is missing: choose one, {where}=OPTION")
        raise UserError(f"{where} = {_shown(value)}: must be a mapping with a _target_")
    try:
        # true is an int for Python; a user who writes it where a number belongs is mistaken.
        return _adapter(hint).validate_python(value, strict=isinstance(value, bool) or None)
    except ValidationError as error:
        raise UserError(_first_lines(error, value, where)) from error


def _classes(hint: Any) -> tuple[type, ...]:
    """The plain classes that a hint names: of ``A``, ``A | None`` and ``Annotated[A, ...]``."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _classes(get_args(hint)[0])
    if origin in (Union, types.UnionType):
        return tuple(cls for option in get_args(hint) for cls in _classes(option))
    if isinstance(hint, type) and hint is not type(None):
        return (hint,)
    return ()


def _wanted(hint: Any) -> tuple[type, ...] | None:
    """The classes whose objects a hint takes, also within its lists; None: it does not tell."""
    origin, options = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _wanted(options[0])
    if origin is Literal or hint is type(None):
        return ()
    if origin is None:
        told = isinstance(hint, type) and hint is not object
        return (hint,) if told and not getattr(hint, "_is_protocol", False) else None
    if origin not in (Union, types.UnionType) and not issubclass(origin, Container):
        return None
    inner = [_wanted(option) for option in options if option is not Ellipsis]
    return None if None in inner else tuple(cls for classes in inner if classes for cls in classes)


def _is_part(cls: type) -> bool:
    """Whether the class is built by a _target_; pydantic's models are values that it reads."""
    return _allowed(cls.__module__) and not issubclass(cls, BaseModel)


def _adapter(hint: Any) -> TypeAdapter[Any]:
    try:
        config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
        return TypeAdapter(hint, config=config)
    except PydanticUserError:  # a hint that brings a configuration of its own
        return TypeAdapter(hint)


def _first_lines(error: ValidationError, value: Any, where: str) -> str:
    """All that is wrong with one argument, in one line: ``where = value: must be ...``."""
    messages: dict[str, list[str]] = {}
    for detail in error.errors(include_url=False):
        place, text = where, re.sub(r"^\w+ should", "must", detail["msg"])
        inside = value
        for part in detail["loc"]:
            # In a union the location also holds the names of the tried types, which help nobody.
            if isinstance(part, int):
                place, inside = f"{place}[{part}]", detail["input"]
            elif isinstance(inside, dict):
                place, inside = f"{place}.{part}", inside.get(part)
        if detail["type"] == "missing":
            shown, text = place, "is missing"
        elif detail["type"] == "extra_forbidden":
            shown, text = place, "no such setting"
        elif detail["type"] == "int_parsing_size":
            shown, text = f"{place} = {_shown(inside)}", "must be a smaller integer"
        else:
            shown = f"{place} = {_shown(inside)}"
            text = re.sub(r", (unable|got) .*", "", text)
        messages.setdefault(shown, [])
        if text not in messages[shown]:
            messages[shown].append(text)
    return "; ".join(f"{shown}: {' or '.join(texts)}" for shown, texts in messages.items())


def _shown(value: Any) -> str:
    try:
        text = value if isinstance(value, str) and value else repr(value)
    except ValueError:  # Python writes no integer of thousands of digits
        text = f"a {type(value).__name__} of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."
