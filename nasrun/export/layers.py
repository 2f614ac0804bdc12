"""Layers and containers as expressions of Python, whose whole numbers stay open."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from nasrun.search_space.depthwise import Depthwise
from nasrun.search_space.operation import Pointwise

WIDTH = 96
"""Characters of a line of the written file."""

POINTWISE = '''class Pointwise(nn.Conv2d):
    """1×1 convolution without bias; a stride is taken by slicing the input first."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, 1, bias=False)
        self.subsample = stride

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, :, :: self.subsample, :: self.subsample])
'''
"""The class that a strided 1×1 convolution needs in the written file."""


@dataclass(frozen=True)
class Number:
    """A whole number in an expression. kind: e.g. ``channels``. half: it is written as n // 2."""

    kind: str
    value: int
    half: bool = False


@dataclass(frozen=True)
class Expression:
    """Text and numbers, and parts that stand between brackets, each on a line if they are long.

    head: before the parts. parts: separated by commas. tail: after them.
    together: whether long parts stand on one line of their own, if it holds them.
    """

    head: tuple[str | Number, ...]
    parts: tuple[Expression, ...] = ()
    tail: str = ""
    together: bool = False

    def numbers(self) -> Iterator[Number]:
        """Yield the numbers in order."""
        yield from (piece for piece in self.head if isinstance(piece, Number))
        for part in self.parts:
            yield from part.numbers()

    def filled(self, words: Iterator[str]) -> Expression:
        """Put words in place of the numbers, in order."""
        head = (piece if isinstance(piece, str) else next(words) for piece in self.head)
        joined = "".join(head)
        parts = tuple(part.filled(words) for part in self.parts)
        return Expression((joined,), parts, self.tail, self.together)

    def skeleton(self) -> str:
        """Return the text with a mark for each number."""
        marks = (f"<{number.kind} {number.half}>" for number in self.numbers())
        return self.filled(marks).written(0, sys.maxsize)

    def written(self, indent: int, width: int = WIDTH, before: int = 0) -> str:
        """Write an expression without numbers.

        indent: columns before its lines. before: further columns before the first one.
        """
        head = "".join(map(str, self.head))
        flat = ", ".join(part.written(0, sys.maxsize) for part in self.parts)
        line = f"{head}{flat}{self.tail}"
        if not self.parts or indent + before + len(line) <= width:
            return line
        inner = indent + 4
        if self.together and inner + len(flat) <= width:
            return f"{head}\n{' ' * inner}{flat}\n{' ' * indent}{self.tail}"
        lines = [f"{' ' * inner}{part.written(inner, width)}," for part in self.parts]
        return "\n".join([head, *lines, f"{' ' * indent}{self.tail}"])


def text(*head: str | Number) -> Expression:
    """Make an expression without parts."""
    return Expression(head)


def listed(head: str, parts: Sequence[Expression], tail: str) -> Expression:
    """Make an expression of parts between brackets."""
    return Expression((head,), tuple(parts), tail)


def quoted(name: str) -> str:
    """Write a string of Python, in double quotes where nothing needs an escape."""
    return f'"{name}"' if name.isprintable() and not {'"', "\\"} & {*name} else repr(name)


def named(pairs: Sequence[tuple[str, Expression]]) -> Expression:
    """Write an ``nn.ModuleDict`` of expressions by name."""
    parts = [
        Expression((f"{quoted(name)}: ", *part.head), part.parts, part.tail, part.together)
        for name, part in pairs
    ]
    return listed("nn.ModuleDict({", parts, "})")


def layer(module: nn.Module) -> Expression | None:
    """Write the constructor of a layer that torch has, in evaluation; None for other modules."""
    if type(module) is Pointwise and module.subsample > 1:
        return _call("Pointwise", *_channels(module), Number("stride", module.subsample))
    if isinstance(module, nn.Conv2d) and type(module) in (nn.Conv2d, Pointwise, Depthwise):
        return _convolution(module)
    if type(module) is nn.Linear:
        bias = () if module.bias is not None else ("bias=False",)
        sides = Number("features", module.in_features), Number("classes", module.out_features)
        return _call("nn.Linear", *sides, *bias)
    if type(module) is nn.BatchNorm2d and module.track_running_stats:
        options = [] if module.eps == 1e-5 else [f"eps={module.eps!r}"]
        options += [] if module.affine else ["affine=False"]
        return _call("nn.BatchNorm2d", Number("channels", module.num_features), *options)
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        return _pool(module)
    if type(module) is nn.AdaptiveAvgPool2d and isinstance(module.output_size, int):
        return text(f"nn.AdaptiveAvgPool2d({module.output_size})")
    if type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
        return text("nn.Flatten()")
    if type(module) in _WITHOUT_SETTINGS:
        return text(f"nn.{type(module).__name__}()")
    return text("nn.Identity()") if type(module) is nn.Dropout else None


_WITHOUT_SETTINGS = (
    *(nn.ReLU, nn.ReLU6, nn.Identity, nn.SiLU, nn.Hardswish, nn.Hardsigmoid),
    *(nn.Sigmoid, nn.Tanh, nn.Mish),
)
"""Layers that are written by their name alone."""


def _call(name: str, *arguments: str | Number | tuple[str, Number]) -> Expression:
    parts = [text(*(one if isinstance(one, tuple) else (one,))) for one in arguments]
    return Expression((f"{name}(",), tuple(parts), ")", together=True)


def _channels(module: nn.Conv2d) -> tuple[Number, Number]:
    return Number("channels", module.in_channels), Number("channels", module.out_channels)


def _convolution(module: nn.Conv2d) -> Expression | None:
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        return None
    arguments: list[str | Number | tuple[str, Number]] = [*_channels(module)]
    kernel, stride, padding = module.kernel_size, module.stride, module.padding
    square = all(len(set(sides)) == 1 for sides in (kernel, stride, padding, module.dilation))
    if square:
        side, dilation = kernel[0], module.dilation[0]
        arguments.append(Number("kernel", side))
        if stride[0] != 1:
            arguments.append(("stride=", Number("stride", stride[0])))
        if padding[0] and padding[0] == side // 2:
            arguments.append(("padding=", Number("kernel", side, half=True)))
        elif padding[0]:
            arguments.append(("padding=", Number("padding", padding[0])))
        if dilation != 1:
            arguments.append(("dilation=", Number("dilation", dilation)))
    else:
        arguments += [str(kernel), f"stride={stride}", f"padding={padding}"]
        arguments += [] if set(module.dilation) == {1} else [f"dilation={module.dilation}"]
    if module.groups != 1:
        arguments.append(("groups=", Number("channels", module.groups)))
    arguments += [] if module.bias is not None else ["bias=False"]
    return _call("nn.Conv2d", *arguments)


def _pool(module: nn.MaxPool2d | nn.AvgPool2d) -> Expression | None:
    name = type(module).__name__
    sides = f"{module.kernel_size}, stride={module.stride}, padding={module.padding}"
    more = f", ceil_mode={module.ceil_mode}" if module.ceil_mode else ""
    if isinstance(module, nn.AvgPool2d):
        if module.divisor_override is not None:
            return None
        more += "" if module.count_include_pad else ", count_include_pad=False"
    elif module.dilation != 1 or module.return_indices:
        return None
    return text(f"nn.{name}({sides}{more})")
