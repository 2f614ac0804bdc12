"""Check a value of a configuration against the type hint of the argument that takes it."""

from __future__ import annotations

import re
import types
from collections.abc import Container
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from nasrun.building.allowed import is_allowed
from nasrun.errors import UserError

MAX_SHOWN_CHARACTERS = 60
"""Length of a value in a message."""

_PLAIN_TYPES = (type(None), bool, int, float, str, list, dict)


def checked(value: Any, hint: Any, where: str) -> Any:
    """Convert ``value`` to the type ``hint``: e.g. a list to a tuple, a mapping to a model.

    value: plain, or an object that was built from a node.
    where: its place in the configuration, for messages.
    Raises UserError if the hint does not allow the value.
    """
    classes = classes_of(hint)
    if not isinstance(value, _PLAIN_TYPES):
        if hint is Any or not classes or isinstance(value, classes):
            return value
        wanted = " or ".join(cls.__name__ for cls in classes)
        raise UserError(f"{where} must be a {wanted}, not a {type(value).__name__}")
    built = [cls for cls in classes if not issubclass(cls, _PLAIN_TYPES) and _is_built(cls)]
    if built and len(built) == len(classes):
        if value is None and type(None) in get_args(hint):
            return None
        if value is None:
            raise UserError(f"{where} is missing: choose one, {where}=OPTION")
        raise UserError(f"{where} = {_shown(value)}: must be a mapping with a _target_")
    try:
        # true is an int for Python; a user who writes it where a number belongs is mistaken.
        return _adapter(hint).validate_python(value, strict=isinstance(value, bool) or None)
    except ValidationError as error:
        raise UserError(_in_one_line(error, value, where)) from error


def classes_of(hint: Any) -> tuple[type, ...]:
    """Return the plain classes that a hint names: of ``A``, ``A | None`` or ``Annotated``."""
    origin = get_origin(hint)
    if origin is Annotated:
        return classes_of(get_args(hint)[0])
    if origin in (Union, types.UnionType):
        return tuple(cls for option in get_args(hint) for cls in classes_of(option))
    if isinstance(hint, type) and hint is not type(None):
        return (hint,)
    return ()


def buildable_classes(hint: Any) -> tuple[type, ...] | None:
    """Return the classes whose objects a hint allows, also in lists; None: unknown."""
    origin, options = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return buildable_classes(options[0])
    if origin is Literal or hint is type(None):
        return ()
    if origin is None:
        told = isinstance(hint, type) and hint is not object
        return (hint,) if told and not getattr(hint, "_is_protocol", False) else None
    if origin not in (Union, types.UnionType) and not issubclass(origin, Container):
        return None
    inner = [buildable_classes(option) for option in options if option is not Ellipsis]
    return None if None in inner else tuple(cls for classes in inner if classes for cls in classes)


def _is_built(cls: type) -> bool:
    """Tell whether the class is built by a _target_; pydantic reads its models from values."""
    return is_allowed(cls.__module__) and not issubclass(cls, BaseModel)


def _adapter(hint: Any) -> TypeAdapter[Any]:
    try:
        config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
        return TypeAdapter(hint, config=config)
    except PydanticUserError:  # the hint has a pydantic configuration of its own
        return TypeAdapter(hint)


def _in_one_line(error: ValidationError, value: Any, where: str) -> str:
    """Describe all mistakes in one argument, in one line: ``where = value: must be ...``."""
    messages: dict[str, list[str]] = {}
    for detail in error.errors(include_url=False):
        place, text = (
            where,
            re.sub(r"^\w+ should", "must", detail["msg"]).removeprefix("Value error, "),
        )
        inside = value
        for key in detail["loc"]:
            # In a union the location also holds the names of the tried types; leave them out.
            if isinstance(key, int):
                place, inside = f"{place}[{key}]", detail["input"]
            elif isinstance(inside, dict):
                place, inside = f"{place}.{key}", inside.get(key)
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
    except ValueError:  # Python refuses to print integers of thousands of digits
        text = f"a {type(value).__name__} of thousands of digits"
    limit = MAX_SHOWN_CHARACTERS
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
