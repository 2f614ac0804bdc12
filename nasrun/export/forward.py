"""The body of a ``forward`` from what a module was recorded to compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import chain, count
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nasrun.export.recording import (
    Batch,
    Call,
    Device,
    Frame,
    UnwritableError,
    Value,
    Weight,
    parts_of,
    values_of,
)

_OPERATORS = {
    **dict.fromkeys(("add", "__add__", "__iadd__"), "{0} + {1}"),
    **dict.fromkeys(("sub", "__sub__", "__isub__"), "{0} - {1}"),
    **dict.fromkeys(("mul", "__mul__", "__imul__"), "{0} * {1}"),
    **dict.fromkeys(("div", "true_divide", "__truediv__", "__itruediv__"), "{0} / {1}"),
    **dict.fromkeys(("__radd__",), "{1} + {0}"),
    **dict.fromkeys(("__rsub__", "rsub"), "{1} - {0}"),
    **dict.fromkeys(("__rmul__",), "{1} * {0}"),
    **dict.fromkeys(("__rtruediv__", "__rdiv__"), "{1} / {0}"),
    **dict.fromkeys(("lt", "__lt__"), "{0} < {1}"),
    **dict.fromkeys(("le", "__le__"), "{0} <= {1}"),
    **dict.fromkeys(("gt", "__gt__"), "{0} > {1}"),
    **dict.fromkeys(("ge", "__ge__"), "{0} >= {1}"),
}
"""Methods of tensors that are written as operators of two operands."""

_DEFAULTS: tuple[tuple[str, Any], ...] = (
    *(("inplace", False), ("ceil_mode", False), ("return_indices", False), ("dilation", 1)),
    *(("mode", "constant"), ("value", None), ("memory_format", torch.preserve_format)),
)
"""Keyword arguments that mean nothing."""


class Body:
    """Writes the statements of one module.

    module_at: writes the attribute of a module, weight_at: of a weight, by name in the network.
    shapes: whether the shape of each module's output stands behind its call.
    """

    def __init__(
        self,
        frame: Frame,
        module_at: Callable[[str], str],
        weight_at: Callable[[Weight], str],
        *,
        shapes: bool,
    ) -> None:
        self.frame, self.module_at, self.weight_at, self.shapes = (
            frame,
            module_at,
            weight_at,
            shapes,
        )
        self.names: dict[Value, str] = {}
        self.needs_batch = self.needs_device = False

    def lines(self) -> tuple[list[str], list[str]]:
        """Return the names of the arguments, and the statements."""
        frame = self.frame
        pool = list(_names(len(frame.inputs)))
        self.names = dict(zip(frame.inputs, pool, strict=False))
        arguments = list(self.names.values())
        last = _last_uses(frame)
        statements: list[tuple[str, str, str]] = []  # names of the outputs, expression, comment
        for index, item in enumerate(frame.items):
            expression = self._expression(item)
            read = dict.fromkeys(_read_by(item))
            dying = [value for value in read if last[value] == index]
            dying = [value for value in dying if value not in (*frame.outputs, *item.outputs)]
            free = [self.names.pop(value) for value in dying]
            for value in item.outputs:
                taken = set(self.names.values())
                more = (f"t{number}" for number in count(1))
                choice = (name for name in chain(free, pool, more) if name not in taken)
                self.names.setdefault(value, next(choice))
            targets = ", ".join(self.names[value] for value in item.outputs)
            shown = self.shapes and isinstance(item, Frame) and len(item.outputs) == 1
            comment = f"  # {shape_of(item.outputs[0])}" if shown else ""
            statements.append((targets, expression, comment))
        result = ", ".join(self.names[value] for value in frame.outputs)
        lines = [f"{names} = {expression}{comment}" for names, expression, comment in statements]
        if statements and statements[-1][0] == result and not statements[-1][2]:
            lines[-1] = f"return {statements[-1][1]}"
        else:
            lines.append(f"return {result}")
        if self.needs_batch or self.needs_device:
            if not frame.inputs:
                raise UnwritableError("a module makes a tensor from nothing but its shape")
            lines[:0] = [f"batch = len({arguments[0]})"] * self.needs_batch
            lines[:0] = [f"device = {arguments[0]}.device"] * self.needs_device
        return arguments, lines

    def _expression(self, item: Call | Frame) -> str:
        if isinstance(item, Frame):
            given = ", ".join(self.names[value] for value in item.inputs)
            return f"{self.module_at(item.path)}({given})"
        return self._call(item)

    def _call(self, call: Call) -> str:
        name, args = call.function.__name__, call.args
        if name == "__getitem__":
            return f"{self._written(args[0])}[{self._index(args[1])}]"
        if name == "__get__":
            return f"{self._written(args[0])}.{call.function.__self__.__name__}"  # type: ignore[attr-defined]
        if name in _OPERATORS and len(args) == 2 and not call.kwargs:
            return _OPERATORS[name].format(*map(self._written, args))
        prefix, given = _place(call.function), list(args)
        if prefix is None:
            raise UnwritableError(f"it calls {name}, which is no function of torch")
        if prefix == "":
            prefix = f"{self._written(given.pop(0))}."
        words = [self._written(value) for value in given]
        words += [
            f"{key}={self._written(value)}"
            for key, value in call.kwargs.items()
            if not any(key == other and value == default for other, default in _DEFAULTS)
        ]
        return f"{prefix}{name}({', '.join(words)})"

    def _index(self, value: Any) -> str:
        if isinstance(value, tuple) and value:
            return ", ".join(map(self._index, value)) + ("," if len(value) == 1 else "")
        if isinstance(value, slice):
            start, stop, step = ("" if v is None else self._written(v) for v in parts_of(value))
            return f"{start}:{stop}" + (f":{step}" if step else "")
        return self._written(value)

    def _written(self, value: Any) -> str:
        if isinstance(value, Value):
            return self.names[value]
        if isinstance(value, Weight):
            return self.weight_at(value)
        if isinstance(value, Batch):
            self.needs_batch = True
            return "batch" if value.factor == 1 else f"({value.factor} * batch)"
        if isinstance(value, Device):
            self.needs_device = True
            return "device"
        if isinstance(value, tuple):
            return f"({', '.join(map(self._written, value))}{',' if len(value) == 1 else ''})"
        if isinstance(value, list):
            return f"[{', '.join(map(self._written, value))}]"
        if isinstance(value, float) and not math.isfinite(value):
            return f'float("{value}")'
        return "..." if value is ... else repr(value)


def shape_of(value: Value) -> str:
    """Write the shape of a value, with B for the number of images."""
    return f"[{', '.join(['B', *map(str, value.shape[1:])])}]"


def _names(inputs: int) -> Iterator[str]:
    """Yield names of variables: x alone, x and y for two, else x0, x1, ..., then letters."""
    if inputs > 3:
        yield from (f"x{index}" for index in range(inputs))
    else:
        yield from "xyz"
    yield from "abcdefgh"


def _read_by(item: Call | Frame) -> list[Value]:
    return list(values_of(item)) if isinstance(item, Call) else item.inputs


def _last_uses(frame: Frame) -> dict[Value, int]:
    """Return the place of the statement that reads each value last."""
    return {value: index for index, item in enumerate(frame.items) for value in _read_by(item)}


def _place(function: Callable[..., Any]) -> str | None:
    """Return what stands before the name of a function: "" for a method; None: it is no torch's."""
    name = function.__name__
    for prefix, holder in (("F.", F), ("torch.", torch), ("", Tensor)):
        if getattr(holder, name, None) is function:
            return prefix
    return None
