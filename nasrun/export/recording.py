"""Record what a network computes: calls of its modules and of torch's functions, as a tree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nasrun.errors import UserError

BATCHES = (2, 3)
"""Numbers of images of the two recordings: what differs between them depends on the batch."""

_SAME = ("detach", "view_as", "alias")
"""Functions that return their input, as far as values go; view_as only where shapes are equal."""

_IN_PLACE = ("__iadd__", "__isub__", "__imul__", "__itruediv__")

_PLAIN = (bool, int, float, str, type(None), type(...), torch.dtype, torch.memory_format)


class UnwritableError(UserError):
    """The network does something that cannot be written down as a file of its own."""


@dataclass(eq=False)
class Value:
    """A tensor that is computed, or the images. number: in the order of computation."""

    number: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Weight:
    """A parameter or buffer of the network, by its name in the state."""

    name: str
    shape: tuple[int, ...]
    buffer: bool


@dataclass(frozen=True)
class Batch:
    """A whole number that is ``factor`` times the number of images."""

    factor: int


@dataclass(frozen=True)
class Device:
    """The device of the images."""


@dataclass(eq=False)
class Call:
    """A call of one of torch's functions; tensors are values or weights."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Value]

    @property
    def changes_input(self) -> bool:
        name = self.function.__name__
        return name in _IN_PLACE or (name.endswith("_") and not name.endswith("__"))


@dataclass(eq=False)
class Frame:
    """A call of a module: what is computed inside, in order.

    path: name of the module in the network, "" for the network itself. leaf: whether the module is
    a layer that torch has, so that nothing inside is recorded.
    inputs: the values that come from outside. outputs: those that are used outside.
    """

    path: str
    module: nn.Module
    leaf: bool
    items: list[Call | Frame] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)

    @property
    def in_turn(self) -> bool:
        """Whether the module is a plain ``nn.Sequential``, which calls its parts in turn."""
        return type(self.module).forward is nn.Sequential.forward

    def frames(self) -> Iterator[Frame]:
        """Yield this frame and all frames inside, outer ones first."""
        yield self
        for item in self.items:
            if isinstance(item, Frame):
                yield from item.frames()


def record(
    network: nn.Module, shape: tuple[int, ...], is_leaf: Callable[[nn.Module], bool]
) -> Frame:
    """Record the network in evaluation mode on the CPU, for batches of any number of images.

    shape: of an image, [C, H, W]. is_leaf: tells whether a module is recorded as a whole.
    Raises UnwritableError if it takes a different way for other numbers of images.
    """
    one, other = (
        _Recorder(network, torch.zeros(count, *shape), is_leaf).run() for count in BATCHES
    )
    _unite(one, other)
    _keep_needed(one, set(one.outputs))
    return one


class _Recorder(TorchFunctionMode):
    """Notes calls of functions while the network runs, and of modules by hooks."""

    def __init__(
        self, network: nn.Module, images: Tensor, is_leaf: Callable[[nn.Module], bool]
    ) -> None:
        super().__init__()
        self.network, self.images, self.is_leaf = network, images, is_leaf
        self.root = Frame("", network, leaf=False)
        self.stack: list[Frame] = []
        self.found: dict[int, Value | Weight] = {}
        self.kept: list[Tensor] = []  # so that no other tensor gets the id of a known one
        self.count = 0

    def run(self) -> Frame:
        buffers = dict(self.network.named_buffers())
        for name, tensor in (*self.network.named_parameters(), *buffers.items()):
            self.found[id(tensor)] = Weight(name, tuple(tensor.shape), name in buffers)
            self.kept.append(tensor)
        self.root.inputs = self._values(self.images)
        with ExitStack() as stack, torch.no_grad():
            for path, module in self.network.named_modules():
                enter, leave = self._hooks(path)
                stack.callback(module.register_forward_pre_hook(enter).remove)
                stack.callback(module.register_forward_hook(leave).remove)
            with self:
                out = self.network(self.images)
        self.root.outputs = self._values(out)
        return self.root

    def _hooks(self, path: str) -> tuple[Callable[..., None], Callable[..., None]]:
        def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
            if path == "":
                self.stack.append(self.root)
            elif not self.stack[-1].leaf:
                frame = Frame(path, module, self.is_leaf(module))
                if frame.leaf:
                    frame.inputs = [self._known(tensor) for tensor in _tensors(args)]
                self.stack[-1].items.append(frame)
                self.stack.append(frame)

        def leave(module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
            frame = self.stack[-1]
            if frame.module is module:
                self.stack.pop()
                if frame.leaf:
                    frame.outputs = self._values(out)

        return enter, leave

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.__name__ == "__setitem__":
            raise UnwritableError("it writes into a part of a tensor")
        if self.stack and not self.stack[-1].leaf and any(True for _ in _tensors(out)):
            self._note(func, args, kwargs or {}, out)
        return out

    def _note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        name = func.__name__
        if isinstance(out, Tensor) and name in _SAME and args[0].shape == out.shape:
            self.found[id(out)] = self._converted(args[0])
            self.kept.append(out)
            return
        given = (
            tuple(map(self._converted, args)),
            {k: self._converted(v) for k, v in kwargs.items()},
        )
        new = [tensor for tensor in _tensors(out) if id(tensor) not in self.found]
        call = Call(func, *given, outputs=self._values(out))
        if new or call.changes_input:
            self.stack[-1].items.append(call)

    def _values(self, out: Any) -> list[Value]:
        values = []
        for tensor in _tensors(out):
            if id(tensor) not in self.found:
                self.found[id(tensor)] = Value(self.count, tuple(tensor.shape))
                self.kept.append(tensor)
                self.count += 1
            values.append(self._known(tensor))
        return values

    def _known(self, tensor: Tensor) -> Value:
        value = self.found.get(id(tensor))
        if not isinstance(value, Value):
            raise UnwritableError(
                "it reads a tensor that is neither computed nor one of its weights"
            )
        return value

    def _converted(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self.found[id(value)] if id(value) in self.found else self._known(value)
        if isinstance(value, tuple | list):
            parts = [self._converted(part) for part in value]
            return parts if isinstance(value, list) else tuple(parts)
        if isinstance(value, slice):
            return slice(*map(self._converted, (value.start, value.stop, value.step)))
        if isinstance(value, torch.device):
            return Device()
        if isinstance(value, _PLAIN):
            return value
        raise UnwritableError(f"it hands a {type(value).__name__} to a function of torch")


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from _tensors(inner)


def _unite(one: Frame, other: Frame) -> None:
    """Put a Batch in place of the numbers of ``one`` that depend on the number of images."""
    if len(one.items) != len(other.items):
        raise UnwritableError("its way depends on the number of images")
    for index, (item, same) in enumerate(zip(one.items, other.items, strict=True)):
        if isinstance(item, Frame) and isinstance(same, Frame) and item.path == same.path:
            _unite(item, same)
        elif isinstance(item, Call) and isinstance(same, Call) and item.function == same.function:
            args = _united(item.args, same.args)
            kwargs = {key: _united(item.kwargs[key], same.kwargs[key]) for key in item.kwargs}
            one.items[index] = Call(item.function, args, kwargs, item.outputs)
        else:
            raise UnwritableError("its way depends on the number of images")


def _united(one: Any, other: Any) -> Any:
    if isinstance(one, Value):
        return one
    if isinstance(one, tuple | list) and len(one) == len(other):
        return type(one)(_united(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, slice):
        ends = zip(
            (one.start, one.stop, one.step), (other.start, other.stop, other.step), strict=True
        )
        return slice(*(_united(a, b) for a, b in ends))
    if one == other:
        return one
    factor, rest = divmod(one, BATCHES[0]) if type(one) is int else (0, 1)
    if rest or other != factor * BATCHES[1]:
        raise UnwritableError("a number in it depends on the number of images")
    return Batch(factor)


def values_of(call: Call) -> Iterator[Value]:
    """Yield the values that a call reads."""
    yield from _read((*call.args, *call.kwargs.values()))


def parts_of(value: Any) -> Iterable[Any]:
    """Return the parts of an argument that holds others; empty if it holds none."""
    if isinstance(value, slice):
        return (value.start, value.stop, value.step)
    return value if isinstance(value, tuple | list) else ()


def _read(value: Any) -> Iterator[Value]:
    if isinstance(value, Value):
        yield value
    for part in parts_of(value):
        yield from _read(part)


def _keep_needed(frame: Frame, needed: set[Value]) -> None:
    """Drop what nothing needs, and find what each module reads and returns.

    needed: the values of the frame that are read after it.
    """
    kept: list[Call | Frame] = []
    for item in reversed(frame.items):
        made = set(_made(item))
        if isinstance(item, Call):
            if not made & needed and not item.changes_input:
                continue
            needed = (needed - made) | set(values_of(item))
        else:
            if not item.leaf:
                item.outputs = sorted(made & needed, key=lambda value: value.number)
            if not made & needed:
                continue
            if not item.leaf:
                _keep_needed(item, set(item.outputs))
            needed = (needed - made) | set(item.inputs)
        kept.append(item)
    frame.items = kept[::-1]
    if frame.path:
        frame.inputs = sorted(needed, key=lambda value: value.number)


def _made(item: Call | Frame) -> Iterator[Value]:
    if isinstance(item, Call):
        yield from item.outputs
    elif item.leaf:  # an identity makes nothing
        yield from (value for value in item.outputs if value not in item.inputs)
    else:
        for inner in item.items:
            yield from _made(inner)
