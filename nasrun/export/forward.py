"""The body of a ``forward`` from what a module was recorded to compute."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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

MAX_EXPRESSION = 76
"""Characters of an expression into which others are put."""

_DEFAULTS: tuple[tuple[str, Any], ...] = (
    *(("inplace", False), ("ceil_mode", False), ("return_indices", False), ("dilation", 1)),
    *(("mode", "constant"), ("value", None), ("memory_format", torch.preserve_format)),
)
"""Keyword arguments that mean nothing."""


@dataclass(eq=False)
class _Statement:
    """A statement: an item, and earlier ones that are written inside of its expression."""

    item: Call | Frame
    inside: dict[Value, _Statement] = field(default_factory=dict)

    def reads(self) -> list[Value]:
        """List the values that the statement reads by their names."""
        inner = [value for one in self.inside.values() for value in one.reads()]
        own = [value for value in _read_by(self.item) if value not in self.inside]
        return list(dict.fromkeys([*inner, *own]))

    def every(self) -> Iterator[_Statement]:
        """Yield the statement and those inside of it."""
        yield self
        for one in self.inside.values():
            yield from one.every()


class Body:
    """Writes the statements of one module.

    module_at: writes the attribute of a module, weight_at: of a weight, by name in the network.
    top: whether it is the whole network; then each module has a line, with the shape of its output.
    """

    def __init__(
        self,
        frame: Frame,
        module_at: Callable[[str], str],
        weight_at: Callable[[Weight], str],
        *,
        top: bool,
    ) -> None:
        self.frame, self.top = frame, top
        self.module_at, self.weight_at = module_at, weight_at
        self.names: dict[Value, str] = {}
        self.inside: dict[Value, _Statement] = {}
        self.needs_batch = self.needs_device = False

    def lines(self) -> tuple[list[str], list[str]]:
        """Return the names of the arguments, and the statements."""
        frame = self.frame
        pool = list(_names(len(frame.inputs)))
        self.names = dict(zip(frame.inputs, pool, strict=False))
        arguments = list(self.names.values())
        statements = self._statements()
        last = {value: k for k, one in enumerate(statements) for value in one.reads()}
        written: list[tuple[str, str, str]] = []  # names of the outputs, expression, comment
        for index, one in enumerate(statements):
            self.inside = {v: inner for part in one.every() for v, inner in part.inside.items()}
            expression = self._expression(one.item)
            outputs = one.item.outputs
            dying = [value for value in one.reads() if last[value] == index]
            dying = [value for value in dying if value not in (*frame.outputs, *outputs)]
            free = [self.names.pop(value) for value in dying]
            for value in outputs:
                taken = set(self.names.values())
                more = (f"t{number}" for number in count(1))
                choice = (name for name in chain(free, pool, more) if name not in taken)
                self.names.setdefault(value, next(choice))
            targets = ", ".join(self.names[value] for value in outputs)
            shown = self.top and isinstance(one.item, Frame) and len(outputs) == 1
            written.append((targets, expression, f"  # {shape_of(outputs[0])}" if shown else ""))
        result = ", ".join(self.names[value] for value in frame.outputs)
        lines = [f"{names} = {expression}{comment}" for names, expression, comment in written]
        if written and written[-1][0] == result:
            lines[-1] = f"return {written[-1][1]}{written[-1][2]}"
        else:
            lines.append(f"return {result}")
        if self.needs_batch or self.needs_device:
            if not frame.inputs:
                raise UnwritableError("a module makes a tensor from nothing but its shape")
            lines[:0] = [f"batch = len({arguments[0]})"] * self.needs_batch
            lines[:0] = [f"device = {arguments[0]}.device"] * self.needs_device
        return arguments, lines

    def _statements(self) -> list[_Statement]:
        """Put what is used once, and at once, inside of what uses it, as far as a line holds it."""
        frame = self.frame
        uses = Counter(value for item in frame.items for value in _read_by(item))
        changing = any(isinstance(item, Call) and item.changes_input for item in frame.items)
        found: list[_Statement] = []
        for item in frame.items:
            statement = _Statement(item)
            while found and not changing:
                before = found[-1]
                outputs = before.item.outputs
                shown = self.top and isinstance(before.item, Frame)
                if shown or len(outputs) != 1 or uses[outputs[0]] != 1:
                    break
                if outputs[0] in frame.outputs:
                    break
                users = [one for one in statement.every() if outputs[0] in _read_by(one.item)]
                if not users or self._length(statement) + self._length(before) > MAX_EXPRESSION:
                    break
                users[0].inside[outputs[0]] = found.pop()
            found.append(statement)
        return found

    def _length(self, statement: _Statement) -> int:
        """Return the length of an expression in which every name has one letter."""
        names, inside = self.names, self.inside
        self.names = dict.fromkeys(statement.reads(), "x")
        self.inside = {v: one for part in statement.every() for v, one in part.inside.items()}
        length = len(self._expression(statement.item))
        self.names, self.inside = names, inside
        return length

    def _expression(self, item: Call | Frame) -> str:
        if isinstance(item, Frame):
            given = ", ".join(self._written(value) for value in item.inputs)
            return f"{self.module_at(item.path)}({given})"
        return self._call(item)

    def _call(self, call: Call) -> str:
        name, args = call.function.__name__, call.args
        if name == "__getitem__":
            return f"{self._operand(args[0])}[{self._index(args[1])}]"
        if name == "__get__":
            holder = getattr(call.function, "__self__", None)
            return f"{self._operand(args[0])}.{getattr(holder, '__name__', '')}"
        if _is_operator(call):
            form = _OPERATORS[name]
            return form.format(self._operand(args[0], form), self._operand(args[1]))
        prefix, given = _place(call.function), list(args)
        if prefix is None:
            raise UnwritableError(f"it calls {name}, which is no function of torch")
        if prefix == "":
            prefix = f"{self._operand(given.pop(0))}."
        words = [self._written(value) for value in given]
        words += [
            f"{key}={self._written(value)}"
            for key, value in call.kwargs.items()
            if not any(key == other and value == default for other, default in _DEFAULTS)
        ]
        return f"{prefix}{name}({', '.join(words)})"

    def _operand(self, value: Any, form: str = "") -> str:
        """Write a value between operators, in brackets if need be; form: of sums that go on."""
        inside = isinstance(value, Value) and value in self.inside
        inner = self.inside[value].item if inside else None
        written = self._written(value)
        if not isinstance(inner, Call) or not _is_operator(inner):
            return written
        same = form == _OPERATORS[inner.function.__name__] == "{0} + {1}"
        return written if same else f"({written})"

    def _index(self, value: Any) -> str:
        if isinstance(value, tuple) and value:
            return ", ".join(map(self._index, value)) + ("," if len(value) == 1 else "")
        if isinstance(value, slice):
            start, stop, step = ("" if v is None else self._written(v) for v in parts_of(value))
            return f"{start}:{stop}" + (f":{step}" if step else "")
        return self._written(value)

    def _written(self, value: Any) -> str:
        if isinstance(value, Value):
            if value in self.inside:
                return self._expression(self.inside[value].item)
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


def _is_operator(call: Call) -> bool:
    return call.function.__name__ in _OPERATORS and len(call.args) == 2 and not call.kwargs


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


def _place(function: Callable[..., Any]) -> str | None:
    """Return what stands before the name of a function: "" for a method; None: it is no torch's."""
    name = function.__name__
    for prefix, holder in (("F.", F), ("torch.", torch), ("", Tensor)):
        if getattr(holder, name, None) is function:
            return prefix
    return None
